"""Finds a Python of a wanted version on this machine: this one, PATH, pyenv, uv."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from edgeml.errors import ToolchainError

_PROBE = "import sys, venv{}; print('%d.%d.%d' % sys.version_info[:3])"
_PROBE_TIMEOUT_S = 30
_MINORS = range(9, 20)


class Interpreter(msgspec.Struct, frozen=True, kw_only=True):
    """A Python that can make environments; `version` as in 3.12.1."""

    path: str
    version: str


def find_python(wanted: str, toolchain: str) -> Interpreter:
    """The first Python within a range of versions, this one before all others.

    Args:
        wanted: the range, as in `>=3.11,<3.14`.
        toolchain: whose it will be, for the error.

    Raises:
        ToolchainError: there is none.
    """
    span = SpecifierSet(wanted)
    for path in _candidates(span):
        version = _version(path)
        if version and Version(version) in span:
            return Interpreter(path=path, version=version)
    raise ToolchainError(
        f"The toolchain {toolchain} needs Python {wanted}, and there is none on this machine.",
        why="Looked for on PATH, in pyenv and in uv, with its venv module.",
        fix="Install one (Debian: apt-get install python3 python3-venv; pyenv install; "
        "uv python install) and try again.",
    )


def uv() -> str | None:
    """The path of uv, or None."""
    return shutil.which("uv")


def _candidates(span: SpecifierSet) -> Iterator[str]:
    yield getattr(sys, "_base_executable", sys.executable)
    minors = [minor for minor in _MINORS if any(Version(f"3.{minor}.{p}") in span for p in (0, 99))]
    for name in ("python3", *(f"python3.{minor}" for minor in minors)):
        for folder in os.get_exec_path():
            if found := shutil.which(name, path=folder):
                yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in minors:
        yield from map(str, sorted(pyenv.glob(f"3.{minor}.*/bin/python")))
    if program := uv():
        found = _printed([program, "python", "find", "--no-python-downloads", str(span)])
        if found:
            yield found


def _version(python: str) -> str:
    return _printed([python, "-I", "-c", _PROBE.format("" if uv() else ", ensurepip")])


def _printed(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.strip()
