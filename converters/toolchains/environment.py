"""Fills a folder with what a definition names: an environment, Debian's files, wheels."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

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


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What was installed: the Python of its environment, if it has one, and packages."""

    python: str = ""
    packages: tuple[str, ...] = ()
    debian: tuple[UnpackedPackage, ...] = ()


def build(definition: Definition, folder: Path, say: Callable[[str], None]) -> Built:
    """Install all that a definition names into an empty folder.

    Args:
        definition: of the toolchain.
        folder: where to.
        say: told where something else is installed than what was looked for first.

    Raises:
        ToolchainError: something is missing on this machine, or cannot be downloaded.
    """
    unpacked: list[UnpackedPackage] = []
    interpreter = find_python(definition.python, definition.name) if definition.python else None
    for packages in definition.debian:
        with tempfile.TemporaryDirectory(prefix="edgeml-apt-") as work:
            unpacked += unpack(packages, folder / packages.into, Path(work))
    installed = definition.packages
    if interpreter:
        installed = _make_environment(interpreter, definition, folder / VENV, say)
    emulation = definition.emulation
    if emulation and emulation.root:
        _install_wheels(definition, folder)
        _make_roots(emulation, folder)
    python = interpreter.version if interpreter else ""
    return Built(python=python, packages=installed, debian=tuple(unpacked))


def _make_environment(
    interpreter: Interpreter, definition: Definition, environment: Path, say: Callable[[str], None]
) -> tuple[str, ...]:
    """Make a virtual environment and install the packages; which these were."""
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
    install += ["--no-deps", "--only-binary=:all:"]
    otherwise = definition.otherwise
    try:
        _install([*install, *definition.packages])
    except ToolchainError as error:
        if otherwise is None or otherwise.instead_of not in error.why:
            raise
    else:
        return definition.packages
    say(f"{otherwise.instead_of} is not found. {otherwise.says}")
    kept = (package for package in definition.packages if package != otherwise.instead_of)
    packages = (*kept, *otherwise.packages)
    _install([*install, *packages])
    return packages


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
    _install([*pip, *target, *definition.packages])


def _make_roots(emulation: Emulation, folder: Path) -> None:
    """A root for each processor: the shared one, with the processor's own /proc/cpuinfo."""
    for cpu in emulation.cpus:
        root = folder / CPUS / cpu.name
        (root / "proc").mkdir(parents=True)
        (root / "proc" / "cpuinfo").write_text(cpu.cpuinfo.lstrip("\n"), "ascii")
        for entry in sorted((folder / emulation.root).iterdir()):
            (root / entry.name).symlink_to(Path("..", "..", emulation.root, entry.name))


def _install(command: Sequence[str]) -> None:
    run_command(
        command,
        "The packages cannot be installed.",
        timeout_s=_INSTALL_TIMEOUT_S,
        environment=_environment(),
        fix=_FIX,
    )


def _environment() -> dict[str, str]:
    # A project's own constraints are not for these packages.
    unwanted = {"PIP_CONSTRAINT", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH", "PYTHONHOME", "PIP_USER"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def _quiet_pip() -> tuple[str, ...]:
    return ("--disable-pip-version-check", "--no-warn-script-location", "--no-input")
