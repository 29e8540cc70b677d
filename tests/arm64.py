"""A 64-bit Arm Python with all that `edgeml[agent]` needs, on an emulated processor.

Debian's Python and QEMU come from the toolchain `emulate-arm64`; the wheels that pip chooses for
that platform are kept beside the toolchains, for the next run of the tests.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from converters.toolchains import store
from converters.toolchains.environment import CPUS
from edgeml.errors import ToolchainError

ROOT = Path(__file__).parents[1]
CPU = "neoverse-n1"
# Debian 12 has glibc 2.36; OpenVINO's wheels ask for 2.35, the others for less.
PLATFORMS = (
    *(f"manylinux_2_{n}_aarch64" for n in (35, 31, 28, 27, 17)),
    "manylinux2014_aarch64",
)


def pip_install(
    arguments: Sequence[str], platforms: Sequence[str], python: str
) -> subprocess.CompletedProcess[str]:
    """Run `pip install` of wheels for platforms and a version of Python; for this one if empty."""
    board = [f"--platform={platform}" for platform in platforms]
    board += ["--python-version", python, "--implementation", "cp"] if python else []
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return subprocess.run(
        [*pip, *board, "--only-binary=:all:", "-c", "constraints.txt", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def requirements(extra: str) -> list[str]:
    """What `edgeml[extra]` asks for, as pyproject.toml says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"][extra]]


def python_in(folder: Path, kept: Path) -> Path:
    """Make a program that is this Python; skips where its parts cannot be had.

    A script that starts the emulator: what Python takes for its own program is the script, so
    that a child which it starts is emulated too, without binfmt_misc and without root.

    Args:
        folder: an existing folder, where the script goes.
        kept: the folder of toolchains that tests install.
    """
    try:
        toolchain = store.install("emulate-arm64")
    except ToolchainError as error:
        _missing(f"the toolchain emulate-arm64 cannot be installed here: {error.why}")
    emulation = toolchain.definition.emulation
    assert emulation is not None
    wheels = _wheels(kept)
    [cpu] = [cpu for cpu in emulation.cpus if cpu.name == CPU]
    root = toolchain.folder / CPUS / cpu.name
    path = os.pathsep.join([str(wheels), str(ROOT)])
    # the modules of Debian's own packages stay out (-S), and so do this machine's
    emulator = shlex.join(
        [
            *(str(toolchain.folder / emulation.qemu), "-cpu", cpu.model, "-L", str(root)),
            *("-U", "LD_LIBRARY_PATH", "-E", f"PYTHONHOME={root / 'usr'}"),
            *("-E", f"PYTHONPATH={path}"),
        ]
    )
    python = folder / "python"
    program = shlex.quote(str(root / "usr" / "bin" / "python3"))
    python.write_text(f'#!/bin/sh\nexec {emulator} -0 "$0" {program} -S "$@"\n')
    python.chmod(0o755)
    return python


def _wheels(kept: Path) -> Path:
    """A folder of the unpacked wheels, made once for each set of pinned versions."""
    wanted = requirements("agent")
    pinned = (ROOT / "constraints.txt").read_text()
    key = hashlib.sha256("\n".join([*wanted, *PLATFORMS, pinned]).encode()).hexdigest()[:32]
    there = kept / "agent-arm64" / key
    if there.is_dir():
        return there
    there.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=there.parent, prefix=".making-") as making:
        done = pip_install(["--target", f"{making}/site", *wanted], PLATFORMS, "3.11")
        if done.returncode:
            _missing(f"no wheels for arm64: {done.stderr.strip().splitlines()[-1:]}")
        try:
            (Path(making) / "site").rename(there)
        except OSError:
            if not there.is_dir():  # another run of the tests was first
                raise
    for old in there.parent.glob("[0-9a-f]*"):
        if old != there:
            shutil.rmtree(old, ignore_errors=True)
    return there


def _missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
