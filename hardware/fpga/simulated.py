"""The engine's own gateware, translated to C++ by Verilator, as a transport: a simulated FPGA.

What runs is the Verilog that is synthesised, clock for clock. It needs `verilator` and a C++
compiler, where the model is built the first time; it is kept for the next.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.errors import DeviceError
from hardware.fpga.program import Size
from hardware.fpga.transport import Words, lost

KIND = "simulated FPGA"
CLOCK_HZ = 10_000_000  # that one waits for: no simulation is quicker
SOURCES = (
    "edgeml_engine.v",
    "edgeml_lanes.v",
    "edgeml_memory.v",
    "edgeml_requantize.v",
    "edgeml_sequencer.v",
)
SERIAL = ("edgeml_bridge.v", "edgeml_serial_engine.v", "edgeml_spi.v", "edgeml_uart.v")
TOPS = {"engine": "edgeml_engine", "serial": "edgeml_serial_engine"}
_BUILD_TIMEOUT_S = 600
_TAIL = 400


@cache
def gateware(name: str) -> str:
    """The text of one of the gateware's files."""
    return (files("hardware.fpga") / "gateware" / name).read_text("utf-8")


def gateware_digest() -> str:
    """SHA-256 over the engine's sources."""
    return hashlib.sha256("".join(gateware(name) for name in SOURCES).encode()).hexdigest()


def build_of(size: Size) -> str:
    """32 hexadecimal digits that tell an engine, of this gateware and size, from all others."""
    return hashlib.sha256(f"{gateware_digest()} {size}".encode()).hexdigest()[:32]


class SimulatedEngine:
    """An engine of that size in Verilator."""

    kind = KIND

    def __init__(self, size: Size, *, build: str = "", cache_folder: Path | None = None) -> None:
        self._library = _load(compiled(size, build or build_of(size), cache_folder or _cache()))
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

    def wait(self, seconds: float) -> None:
        """Run the clock until the engine does not, or for so long on a clock of 10 MHz."""
        self._library.engine_clock(self._engine, int(seconds * CLOCK_HZ) + 1)

    def close(self) -> None:
        """Free it."""
        engine, self._engine = self._engine, None
        if engine is not None:
            self._library.engine_close(engine)


def compiled(
    size: Size,
    build: str,
    folder: Path,
    *,
    harness: str = "engine",
    parameters: Mapping[str, int] | None = None,
) -> Path:
    """The shared library of an engine of that size, built where it is not there yet.

    Args:
        size: of the engine.
        build: the 32 digits that it says of itself.
        folder: where the library is kept.
        harness: `engine`, which has the bus, or `serial`, which has the pins.
        parameters: more of them, of the top module that belongs to the harness.

    Raises:
        DeviceError: Verilator or a compiler is missing, or fails.
    """
    given = size.parameters_of_verilog | dict(parameters or {})
    sources = {name: gateware(name) for name in SOURCES + SERIAL * (harness == "serial")}
    sources["harness.cpp"] = (files("hardware.fpga") / "simulation" / f"{harness}.cpp").read_text(
        "utf-8"
    )
    said = f"{sources} {given} {build} {_version()}"
    made = folder / f"engine-{hashlib.sha256(said.encode()).hexdigest()[:32]}.so"
    if not made.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as work:
            _build(sources, TOPS[harness], given, build, Path(work))
            (Path(work) / "out" / "engine.so").replace(made)
    return made


def _build(
    sources: Mapping[str, str], top: str, given: Mapping[str, int], build: str, work: Path
) -> None:
    for name, text in sources.items():
        (work / name).write_text(text, "utf-8")
    command = [
        *("verilator", "--cc", "--exe", "--build", "-O3", "--x-assign", "fast", "-j", "1"),
        *("--prefix", "Vengine", "--top-module", top, "--Mdir", "out"),
        *("-CFLAGS", "-fPIC -O2 -fvisibility=default", "-LDFLAGS", "-shared", "-o", "engine.so"),
        *(f"-G{name}={value}" for name, value in given.items()),
        f"-GBUILD=128'h{build}",
        *sources,
    ]
    try:
        done = subprocess.run(
            command, cwd=work, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
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


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgeml" / "simulated-fpga"


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
    library.engine_clock.argtypes = [engine, ctypes.c_uint64]
    library.engine_clock.restype = ctypes.c_uint64
    return library
