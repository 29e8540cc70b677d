"""Gateware translated to C++ by Verilator and compiled, as a library and as a transport.

What runs is the Verilog that is synthesised, clock for clock. It needs `verilator` and a C++
compiler, where the model is built the first time; it is kept for the next.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.errors import DeviceError
from hardware.fpga.transport import Words, lost

CLOCK_HZ = 10_000_000  # that one waits for: no simulation is quicker
_BUILD_TIMEOUT_S = 1800
_TAIL = 400
_BEST = ("-CFLAGS", "-O2")
_QUICK = ("-MAKEFLAGS", "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0")
_LENIENT = ("-Wno-fatal", "-Wno-WIDTH", "-Wno-lint", "-Wno-style")


class VerilatedBus:
    """A gateware's bus in a compiled model.

    Args:
        library: as `compiled` makes it, of a harness that has a bus.
        kind: as a person is told.
    """

    def __init__(self, library: Path, kind: str) -> None:
        self.kind = kind
        self._library = _load(library)
        self._engine: int | None = self._library.engine_open()

    def read(self, address: int, count: int) -> Words:
        """So many words from an address on."""
        words = np.zeros(count, np.uint32)
        if not self._library.engine_read(self._engine, address, _pointer(words), count):
            raise lost(self.kind, "The bus gave no acknowledgement.")
        return words

    def write(self, address: int, words: Words) -> None:
        """Write words from an address on."""
        given = np.ascontiguousarray(words, np.uint32)
        if not self._library.engine_write(self._engine, address, _pointer(given), given.size):
            raise lost(self.kind, "The bus gave no acknowledgement.")

    @property
    def clocks(self) -> int:
        """That have passed, where the harness counts them."""
        return int(self._library.engine_clocks(self._engine))

    def write_flash(self, address: int, content: bytes) -> None:
        """Write into the flash, where the harness has one."""
        self._library.engine_flash(self._engine, address, content, len(content))

    def wait(self, seconds: float) -> None:
        """Run the clock until the gateware does not, or for so long on a clock of 10 MHz."""
        self._library.engine_clock(self._engine, int(seconds * CLOCK_HZ) + 1)

    def close(self) -> None:
        """Free it."""
        engine, self._engine = self._engine, None
        if engine is not None:
            self._library.engine_close(engine)


def compiled(
    sources: Mapping[str, str],
    top: str,
    parameters: Mapping[str, int | str],
    folder: Path,
    *,
    harness: str = "bus",
    is_foreign: bool = False,
    is_quick: bool = False,
) -> Path:
    """The shared library of a gateware, built where it is not there yet.

    Args:
        sources: Verilog by file name.
        top: its module.
        parameters: of that module; texts are Verilog's constants.
        folder: where the library is kept.
        harness: `bus`, `flash` (a bus, and a serial flash), `axi` or `serial`: what clocks the
            module, see `simulation/`.
        is_foreign: some of it is not ours, and Verilator's warnings do not end it.
        is_quick: it runs for a moment, so that the compiler need not do its best.

    Raises:
        DeviceError: Verilator or a compiler is missing, or fails.
    """
    program = _harness(harness)
    said = f"{dict(sources)} {program} {top} {dict(parameters)} {_version()}"
    made = folder / f"{top}-{hashlib.sha256(said.encode()).hexdigest()[:32]}.so"
    if not made.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as work:
            options = (*_LENIENT * is_foreign, *(_QUICK if is_quick else _BEST))
            whole = {**sources, "harness.cpp": program}
            _build(whole, [*options, "--top-module", top], parameters, Path(work))
            (Path(work) / "out" / "engine.so").replace(made)
    return made


def _harness(name: str) -> str:
    file = "bus" if name == "flash" else name
    text = (files("hardware.fpga") / "simulation" / f"{file}.cpp").read_text("utf-8")
    return f"#define FLASH\n{text}" if name == "flash" else text


def default_folder() -> Path:
    """Where compiled models are kept unless somebody says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgeml" / "simulated-fpga"


def _build(
    sources: Mapping[str, str],
    options: Sequence[str],
    parameters: Mapping[str, int | str],
    work: Path,
) -> None:
    for name, text in sources.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text, "utf-8")
    command = [
        *("verilator", "--cc", "--exe", "--build", "-O3", "--x-assign", "fast", "-j", "1"),
        *("--prefix", "Vengine", "--Mdir", "out", *options),
        *("-CFLAGS", "-fPIC -fvisibility=default", "-LDFLAGS", "-shared", "-o", "engine.so"),
        *(f"-G{name}={value}" for name, value in parameters.items()),
        *sources,
    ]
    try:
        done = subprocess.run(
            command, cwd=work, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            "The FPGA cannot be simulated here.",
            why=f"Verilator and the C++ compiler took longer than {_BUILD_TIMEOUT_S} s.",
            fix="Try again when the machine has less to do.",
        ) from error
    except OSError as error:
        raise _not_built(f"{type(error).__name__}: {error}.") from error
    if done.returncode:
        raise _not_built(f"It says: {(done.stderr or done.stdout)[-_TAIL:].strip()}")


def _not_built(why: str) -> DeviceError:
    return DeviceError(
        "The FPGA cannot be simulated here.",
        why=why,
        fix="Install Verilator 5 and a C++ compiler (Debian: apt-get install verilator g++).",
    )


@cache
def _version() -> str:
    if shutil.which("verilator") is None:
        raise _not_built("There is no program verilator.")
    return subprocess.run(
        ["verilator", "--version"], capture_output=True, text=True, check=False, timeout=60
    ).stdout


def _pointer(words: Words) -> Any:
    return words.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))


@cache
def _load(path: Path) -> Any:
    library = ctypes.CDLL(str(path))
    engine, words = ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32)
    library.engine_open.restype = engine
    library.engine_close.argtypes = [engine]
    for access in (library.engine_read, library.engine_write):
        access.argtypes = [engine, ctypes.c_uint32, words, ctypes.c_uint32]
    if hasattr(library, "engine_flash"):
        count = ctypes.c_uint32
        library.engine_flash.argtypes = [engine, count, ctypes.c_char_p, count]
    if hasattr(library, "engine_clocks"):
        library.engine_clocks.argtypes = [engine]
        library.engine_clocks.restype = ctypes.c_uint64
    library.engine_clock.argtypes = [engine, ctypes.c_uint64]
    library.engine_clock.restype = ctypes.c_uint64
    return library
