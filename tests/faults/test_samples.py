"""Captured frames go up whole, once, and none is lost, whatever strikes device, link and fleet."""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.loop import until
from tests.faults.site import DEVICE, MODEL, PATIENCE_S, Site, every
from tests.needs import allowed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
# What is kept by hand goes up; nothing else is kept.
UPLOAD = {"unsure": False, "upload": True}
FRAMES, FRAME_BYTES = 2, 700_000


@pytest.fixture
def uploading(site: Site) -> Iterator[Site]:
    """The shared site, whose device brings up the frames that a test puts on its disk."""
    site.configure(capture={MODEL: UPLOAD})
    until("the configuration", lambda: uploads(site), PATIENCE_S)
    until("what was kept before to be up", lambda: not left(site), PATIENCE_S)
    yield site
    site.configure()


def uploads(site: Site) -> bool:
    policy = site.state.configuration.capture.get(MODEL)
    return policy is not None and policy.upload and not policy.one_in


def keep(site: Site) -> set[str]:
    """Frames as the agent keeps them, the line last; returns their digests."""
    home = site.data / "captured" / MODEL
    home.mkdir(parents=True, exist_ok=True)
    digests = set()
    for number in range(FRAMES):
        data = os.urandom(FRAME_BYTES)
        stem = f"{1_795_279_438_000 + number}-belt-{number}"
        (home / f"{stem}.npy").write_bytes(data)
        line = {"t": 1_795_279_438.0 + number, "model": MODEL, "confident": False}
        (home / f".{stem}").write_text(json.dumps(line))
        (home / f".{stem}").rename(home / f"{stem}.json")
        digests.add(f"sha256:{hashlib.sha256(data).hexdigest()}")
    return digests


def left(site: Site) -> list[Path]:
    return [path for path in (site.data / "captured").rglob("*") if path.is_file()]


def listed(site: Site) -> list[Any]:
    return site.client.samples(model=MODEL, device=DEVICE)


def brought(site: Site, digests: set[str]) -> None:
    """Wait until nothing is left on the device; the fleet has each frame once, byte for byte."""
    until("the frames to be up", lambda: not left(site), PATIENCE_S)
    found = [one["digest"] for one in listed(site) if one["digest"] in digests]
    assert sorted(found) == sorted(digests)
    home = site.folder / "fleet" / "samples" / MODEL / DEVICE
    for digest in digests:
        data = (home / f"{digest.removeprefix('sha256:')}.npy").read_bytes()
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
    assert list(home.glob("coming/*.part")) == []


def test_what_a_device_keeps_comes_up_with_what_ran(site: Site) -> None:
    site.configure(capture={MODEL: {"one_in": 1, "every_s": 0.1, "upload": True}})
    until("captured frames", lambda: len(listed(site)) > 1, PATIENCE_S)
    site.configure()
    one = listed(site)[0]
    running = site.state.models[MODEL].running
    assert running is not None
    assert (one["release"], one["version"]) == (running.release, running.release_version)
    assert (one["media_type"], one["result"]["source"]) == ("image/png", "belt")


@pytest.mark.parametrize("failpoint", ["sample-piece:kill:5", "sample-stored:kill"])
def test_kill_9_of_the_device_at(uploading: Site, failpoint: str) -> None:
    site = uploading
    site.kill(DEVICE)
    digests = keep(site)
    site.environment = {**os.environ, "EDGEML_FAILPOINT": failpoint}
    site.start_agent()
    site.environment = None
    until("the kill", lambda: site.status(DEVICE) == -signal.SIGKILL, PATIENCE_S)
    assert len(left(site)) == 2 * FRAMES
    site.start_agent()
    brought(site, digests)


def test_a_link_that_is_cut_again_and_again(uploading: Site) -> None:
    uploading.http.bytes_per_s = 400_000.0
    digests = keep(uploading)
    every("bytes to pass", uploading.http.cut, 4, uploading)
    uploading.http.heal()
    brought(uploading, digests)


def test_kill_9_of_the_fleet_in_the_middle(uploading: Site) -> None:
    site = uploading
    site.http.bytes_per_s = 100_000.0
    digests = keep(site)
    home = site.folder / "fleet" / "samples" / MODEL / DEVICE
    until("a part", lambda: any(p.stat().st_size for p in home.glob("coming/*.part")), PATIENCE_S)
    site.kill("fleet")
    site.start_fleet()
    site.http.heal()
    brought(site, digests)


def test_a_full_disk_of_the_fleet_is_waited_for(uploading: Site) -> None:
    place = uploading.folder / "fleet" / "samples"
    place.mkdir(exist_ok=True)
    allowed("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place))
    try:
        digests = keep(uploading)
        until("the log to say so", lambda: "no room" in uploading.log(DEVICE), PATIENCE_S)
        assert len(left(uploading)) == 2 * FRAMES
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
    brought(uploading, digests)
