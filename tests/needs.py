"""What a test needs that may be missing: a skip with its reason here, a failure in CI."""

import contextlib
import importlib
import os
import shutil
import subprocess
import tempfile
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


def allowed(*command: str) -> None:
    """Run a command that not every kernel or container lets root run; a skip where it fails."""
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        _missing(f"{command[0]} is not installed: apt-get install iproute2 mount")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{' '.join(command[:2])} is not allowed here: {error.stderr.decode().strip()}")


def npm_package(name: str, version: str) -> Path:
    """The folder of an npm package that only tests need, installed once for all of them."""
    cache = Path.home() / ".cache" / "edgeml-tests" / "npm"
    folder = cache / f"{name.replace('/', '-')}-{version}"
    found = folder / "node_modules" / name
    if found.exists():
        return found
    npm = program("npm", "npm")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as beside:
        done = subprocess.run(
            [npm, "install", "--prefix", beside, "--ignore-scripts", f"{name}@{version}"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            _missing(f"npm cannot install {name}: {done.stderr.strip()[-300:]}")
        made = Path(beside) / "whole"
        made.mkdir()
        (Path(beside) / "node_modules").rename(made / "node_modules")
        with contextlib.suppress(OSError):  # another worker was quicker
            made.rename(folder)
    return found


def _missing(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
