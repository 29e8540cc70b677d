"""Fills a folder with what a definition names: an environment, Debian's files, wheels."""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from converters.toolchains.command import run_command
from converters.toolchains.debian import UnpackedPackage, unpack
from converters.toolchains.definition import Definition, Emulation
from converters.toolchains.interpreters import Interpreter, find_python, uv
from edgeml.errors import ToolchainError

SITE = "site"  # the emulated Python's packages
VENV = "venv"
CPUS = "cpus"
_INSTALL_TIMEOUT_S = 3600
_FIX = "Check the network and pip's configuration."


def build(
    definition: Definition, folder: Path
) -> tuple[Interpreter | None, tuple[UnpackedPackage, ...]]:
    """Install all that a definition names into an empty folder.

    Returns:
        The Python of its environment, if it has one, and the Debian packages unpacked.

    Raises:
        ToolchainError: something is missing on this machine, or cannot be downloaded.
    """
    unpacked: list[UnpackedPackage] = []
    interpreter = find_python(definition.python, definition.name) if definition.python else None
    for packages in definition.debian:
        with tempfile.TemporaryDirectory(prefix="edgeml-apt-") as work:
            unpacked += unpack(packages, folder / packages.into, Path(work))
    if interpreter:
        _make_environment(interpreter, definition, folder / VENV)
    emulation = definition.emulation
    if emulation and emulation.root:
        _install_wheels(definition, folder)
        _make_roots(emulation, folder)
    return interpreter, tuple(unpacked)


def _make_environment(interpreter: Interpreter, definition: Definition, environment: Path) -> None:
    program = uv()
    python = environment / "bin" / "python"
    if program:
        make = [program, "venv", "--quiet", "--no-project", "--python", interpreter.path]
        install = [program, "pip", "install", "--quiet", "--python", str(python)]
    else:
        make = [interpreter.path, "-I", "-m", "venv"]
        install = [str(python), "-I", "-m", "pip", "install", "--quiet", *_quiet_pip()]
    run_command(
        [*make, str(environment)],
        f"No environment can be made with Python {interpreter.version}.",
        timeout_s=_INSTALL_TIMEOUT_S,
        environment=_environment(),
    )
    # Every package is named with its version: --no-deps keeps out whatever is not.
    command = [*install, "--no-deps", "--only-binary=:all:", *definition.packages]
    _install(command, definition.fix)


def _install_wheels(definition: Definition, folder: Path) -> None:
    emulation = definition.emulation
    assert emulation is not None
    found = sorted((folder / emulation.root / "usr" / "lib").glob("python3.*/os.py"))
    if not found:
        raise ToolchainError(
            "The Debian packages bring no Python.", why=f"None is in {emulation.root}/usr/lib."
        )
    version = found[0].parent.name.removeprefix("python")
    target = ["--target", str(folder / SITE), "--no-deps", "--only-binary=:all:"]
    if program := uv():
        pip = [program, "pip", "install", "--quiet", "--python-version", version]
        target += ["--python-platform", emulation.uv_platform]
    else:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", *_quiet_pip()]
        target += ["--python-version", version, "--implementation", "cp"]
        target += [f"--platform={platform}" for platform in emulation.platforms]
    _install([*pip, *target, *definition.packages], definition.fix)


def _make_roots(emulation: Emulation, folder: Path) -> None:
    """A root for each processor: the shared one, with the processor's own /proc/cpuinfo."""
    for cpu in emulation.cpus:
        root = folder / CPUS / cpu.name
        (root / "proc").mkdir(parents=True)
        (root / "proc" / "cpuinfo").write_text(cpu.cpuinfo.lstrip("\n"), "ascii")
        for entry in sorted((folder / emulation.root).iterdir()):
            (root / entry.name).symlink_to(Path("..", "..", emulation.root, entry.name))


def _install(command: Sequence[str], fix: str) -> None:
    run_command(
        command,
        "The packages cannot be installed.",
        timeout_s=_INSTALL_TIMEOUT_S,
        environment=_environment(),
        fix=fix or _FIX,
    )


def _environment() -> dict[str, str]:
    # A project's own constraints are not for these packages.
    unwanted = {"PIP_CONSTRAINT", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH", "PYTHONHOME", "PIP_USER"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def _quiet_pip() -> tuple[str, ...]:
    return ("--disable-pip-version-check", "--no-warn-script-location", "--no-input")
