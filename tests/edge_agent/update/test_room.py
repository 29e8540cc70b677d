"""A disk that cannot take a release refuses it before the first byte: real file systems."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cloud_sync.messages import Phase
from cloud_sync.release import Blobs
from cloud_sync.transfer import OciClient
from cloud_sync.watch import Watch
from edge_agent.room import SPARE_BYTES, SPARE_FILES, require_room
from edge_agent.shortage import Shortage
from edgeml.errors import DeviceError
from tests.cloud_sync.registries import DATA, DIGEST, FaultyRegistry, running
from tests.edge_agent import disk as disk_of
from tests.edge_agent.processes import AgentProcess, eventually
from tests.edge_agent.scene import MODEL, Scene

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory, mounted on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tests", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def test_what_fits_with_some_to_spare_is_let_in_and_not_a_byte_more(tmp_path: Path) -> None:
    size = SPARE_BYTES + (1 << 20)
    with tmpfs(tmp_path / "disk", f"size={size}") as disk:
        require_room(disk, 1 << 20, 1)
        with pytest.raises(Shortage, match=f"{(1 << 20) + 1} bytes are needed"):
            require_room(disk, (1 << 20) + 1, 1)
        (disk / "other").write_bytes(bytes(1 << 16))
        with pytest.raises(Shortage, match="no room"):
            require_room(disk, 1 << 20, 1)


def test_inodes_are_counted(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", f"size=64m,nr_inodes={SPARE_FILES + 4}") as disk:
        require_room(disk, 1, 3)
        with pytest.raises(Shortage, match="no inodes"):
            require_room(disk, 1, 4)
        (disk / "other").touch()
        with pytest.raises(Shortage, match=f"{SPARE_FILES + 2} inodes are free"):
            require_room(disk, 1, 3)


def test_a_read_only_file_system_is_named_and_taken_when_it_is_not_any_more(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=64m") as disk:
        remount(disk, "ro")
        with pytest.raises(Shortage, match="read-only"):
            require_room(disk, 1, 1)
        remount(disk, "rw")
        require_room(disk, 1, 1)


@pytest.mark.parametrize(
    ("options", "then", "says"),
    [
        ("size=8m", "", "no room for the release"),
        (f"size=64m,nr_inodes={SPARE_FILES + 2}", "", "no inodes left"),
        ("size=64m", "ro", "read-only"),
    ],
)
def test_an_agent_asks_for_nothing_that_its_disk_cannot_take(
    scene: Scene, options: str, then: str, says: str
) -> None:
    with tmpfs(scene.data / "releases", options) as disk:
        if then:
            remount(disk, then)
        scene.want(scene.release("1.0.0"))
        with AgentProcess(scene.config) as agent:
            eventually(lambda: scene.device.phase(MODEL, "1.0.0") is Phase.REFUSED, what="refused")
            agent.stop()
    assert says in scene.device.states(MODEL)[-1].reason
    assert [r for r in scene.fleet.requests if "/blobs/" in r or "/manifests/" in r] == []


class Filling(Watch):
    """Fills the disk as soon as something has come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def arrived(self, count: int) -> None:
        if count:
            disk_of.fill(self._folder)


def test_a_disk_that_fills_up_while_a_blob_comes_gets_enough_back_to_say_so(
    tmp_path: Path,
) -> None:
    with (
        tmpfs(tmp_path / "disk", "size=16m") as disk,
        running(FaultyRegistry()) as registry,
        closing(OciClient(registry.url, sleep=lambda _seconds: None)) as client,
    ):
        with pytest.raises(DeviceError, match="cannot be stored"):
            client.fetch_blob("m", DIGEST, len(DATA), Blobs(disk), Filling(disk))
        (disk / "state.json").write_bytes(bytes(4096))
        (disk / disk_of.FILLER).unlink()
        client.fetch_blob("m", DIGEST, len(DATA), Blobs(disk))
        Blobs(disk).verify(DIGEST)
