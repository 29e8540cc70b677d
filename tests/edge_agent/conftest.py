"""A fleet, a device and a scene for it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge_agent.scene import Scene
from tests.sim.fleet import SimFleet


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with SimFleet(tmp_path / "registry") as fleet:
        yield Scene(tmp_path, fleet)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
