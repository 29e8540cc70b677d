"""What a test needs that may be missing: a skip with its reason here, a failure in CI."""

import importlib
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest


def program(name: str, package: str) -> str:
    """The path of a program that a Debian package brings."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        _missing(f"{name} is not installed: apt-get install {package}")
    assert found is not None
    return found


def library(name: str, package: str) -> Path:
    """The path of a shared library that a Debian package brings, by the end of its name."""
    found = sorted(Path("/usr/lib").glob(f"*/{name}"))
    if not found:
        _missing(f"{name} is not installed: apt-get install {package}")
    return found[0]


def module(name: str) -> ModuleType:
    """A module that only tests need."""
    try:
        return importlib.import_module(name)
    except ImportError:
        _missing(f"{name} is not installed: pip install {name.partition('.')[0]}")
        raise


def _missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
