"""What takes part in every conversion and is no input of it: edgeml's own code, and packages."""

import hashlib
import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

_PACKAGES = ("cloud_sync", "converters", "edgeml", "hardware")
_EXTRAS = {"agent", "convert", "litert", "openvino"}
_NAME = re.compile(r"[\w.-]+")
_EXTRA = re.compile(r"""extra == ["']([\w-]+)["']""")


@cache
def surroundings() -> str:
    """The SHA-256 of all of it.

    Edgeml's own files, since a version number stands still while somebody edits them; Python,
    and the installed version of each package that a conversion may use.
    """
    told = hashlib.sha256(platform.python_version().encode())
    root = Path(__file__).resolve().parents[1]
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                data = hashlib.sha256(path.read_bytes()).hexdigest()
                told.update(f"\n{path.relative_to(root)} {data}".encode())
    for name in sorted(_required()):
        told.update(f"\n{name} {_installed(name)}".encode())
    return told.hexdigest()


def _required() -> set[str]:
    names = {"edgeml"}
    for line in requires("edgeml") or ():
        extras = set(_EXTRA.findall(line))
        if not extras or extras & _EXTRAS:
            names.add(_NAME.findall(line)[0])
    return names


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
