"""A disk that is full, and one that was mounted again to be read only."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.loop import until
from tests.edge_agent import disk
from tests.faults.site import DEVICE, MODEL, PATIENCE_S, Site
from tests.needs import allowed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
SIZE = "16m"


class Mounted(Site):
    """A site whose device has a small disk of its own; its results go to another one."""

    disk: Path

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.disk)], check=True)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Whoever opens a file of the disk finds it read only.

        No kernel remounts so what is open for writing, unless its disk has failed; a mount of
        the same over it takes effect under a running process, too.
        """
        subprocess.run(["mount", "--bind", str(self.disk), str(self.disk)], check=True)
        try:
            self.remount("bind,ro")
            yield
        finally:
            subprocess.run(["umount", "-l", str(self.disk)], check=True)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    folder = tmp_path
    place = folder / "disk"
    place.mkdir()
    allowed("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place))
    made = Mounted(folder, data=place / DEVICE)
    made.disk = place
    try:
        made.start_fleet()
        made.enroll()
        (made.data / "results.jsonl").symlink_to(folder / "results.jsonl")
        made.start_agent()
        made.settled()
        yield made
    finally:
        made.close()
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_waits_for_room(mounted: Mounted) -> None:
    before = mounted.version
    disk.fill(mounted.disk)
    update = mounted.update()
    mounted.goes_on(before)
    running = mounted.state.models[MODEL].running
    assert running is not None
    assert running.release_version == before
    disk.free(mounted.disk)
    mounted.settled(update)


def test_a_device_comes_up_on_a_disk_that_is_read_only(mounted: Mounted) -> None:
    before = mounted.version
    mounted.kill(DEVICE)
    mounted.remount("ro")
    mounted.start_agent()
    mounted.goes_on(before)
    update = mounted.update()
    mounted.goes_on(before)
    mounted.kill(DEVICE)
    mounted.remount("rw")
    mounted.start_agent()
    mounted.settled(update)


def test_a_running_device_goes_on_when_its_disk_becomes_read_only(mounted: Mounted) -> None:
    before = mounted.version
    with mounted.read_only():
        update = mounted.update()
        mounted.goes_on(before)
        until("the log to say so", lambda: "Read-only" in mounted.log(DEVICE), PATIENCE_S)
        mounted.goes_on(before)
        assert mounted.status(DEVICE) is None
    mounted.settled(update)
    assert mounted.status(DEVICE) is None


def test_a_disk_that_fills_up_in_the_middle_of_a_download_waits_for_room(
    mounted: Mounted,
) -> None:
    before = mounted.version
    mounted.http.bytes_per_s = 3000.0
    update = mounted.update(ballast=1_000_000)
    update.reached("downloading")
    disk.fill(mounted.disk)
    mounted.goes_on(before)
    mounted.http.heal()
    disk.free(mounted.disk)
    mounted.settled(update)
