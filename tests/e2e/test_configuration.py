"""A change of a layer in waves over real agents: taken, refused with the reason, given back."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.messages import Configuration
from edge_agent.update.journal import read_state
from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, until

pytestmark = pytest.mark.e2e
DEVICES = ("cam-1", "cam-2")
POLICY = "soak_s = 0.5\n[[waves]]\ncount = 1\n[[waves]]\npercent = 100\n"


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    made = Loop(tmp_path)
    try:
        made.start_fleet()
        for device in DEVICES:
            made.enroll(device)
            made.start_agent(device)
        yield made
    finally:
        made.close()


def committed(loop: Loop, device: str) -> Configuration:
    """What a device follows, as it has it on its disk."""
    return read_state(loop.folder / device / "state.json").configuration


def change(loop: Loop, said: dict[str, Any], **more: Any) -> str:
    found = loop.client.change_layer("north", said, POLICY, **more)
    assert found["rollout"] is not None
    return found["rollout"]


def test_devices_take_a_change_in_waves_and_refuse_one_that_they_cannot_follow(loop: Loop) -> None:
    until("both devices", lambda: all(d["capabilities"] for d in loop.client.devices()))
    closed = {"begins": hour(12), "ends": hour(13)}
    said = {"max_download_bytes_s": 123_456, "update_windows": [closed]}
    first = change(loop, said, selector="site=test")
    loop.kill("fleet")
    loop.start_fleet()
    ended = loop.finished(first)
    assert (ended["status"], ended["kind"]) == ("completed", "configuration"), ended["sentence"]
    for device in DEVICES:
        assert committed(loop, device).max_download_bytes_s == 123_456
        shown = loop.client.configuration(device)
        origins = {s["key"]: s["origin"] for s in shown["settings"]}
        assert origins["max_download_bytes_s"] == "north@1"
        assert origins["update_windows"] == "north@1"
        assert origins["sources.pictures.uri"] == f"device:{device}@1"

    gone = {"name": "gone", "uri": "nosuch:///belt", "model": "toy"}
    second = change(loop, {"max_download_bytes_s": 99, "sources": [gone]})
    ended = loop.finished(second)
    assert ended["status"] == "halted", ended["sentence"]
    assert "the source 'gone'" in ended["reason"]
    until(
        "both devices to follow what they had",
        lambda: all(loop.client.configuration(d)["status"] == "committed" for d in DEVICES),
    )
    for device in DEVICES:
        assert committed(loop, device).max_download_bytes_s == 123_456
    assert loop.client.layer("north")["number"] == 1


def hour(later: int) -> str:
    """The full hour of this machine's time so many hours from now."""
    return f"{time.localtime(time.time() + later * 3600).tm_hour:02}:00"


def test_a_release_waits_for_the_window_of_a_device_and_says_so(loop: Loop) -> None:
    layout, _ = make_release(loop.folder / "release", "1.0.0")
    loop.client.push(layout.folder)
    until("both devices", lambda: all(d["capabilities"] for d in loop.client.devices()))
    first, second = DEVICES
    own = loop.client.configuration(second)["configuration"]
    own.pop("config_version")
    closed = {"begins": hour(12), "ends": hour(13)}
    loop.client.configure(second, own | {"update_windows": [closed]})
    planned = {d["device"]: d["reason"] for d in loop.client.plan("toy", "1.0.0")["devices"]}
    assert f"in its update window (every day {hour(12)} to {hour(13)}" in planned[second]
    assert "window" not in planned[first]

    rollout = loop.roll_out("1.0.0")
    until(
        "the other device, and why it waits",
        lambda: "waits for the update windows" in loop.client.rollout(rollout)["sentence"],
    )
    assert loop.phases(rollout) == {first: "committed", second: ""}
    # It closes again while the device is on its way: that says so itself, and fails nothing.
    loop.stop(second)
    loop.client.configure(second, own)
    given = f"{second} was given it"
    until("it is given the release", lambda: given in loop.client.rollout(rollout)["sentence"])
    loop.client.configure(second, own | {"update_windows": [closed]})
    loop.start_agent(second)

    def said() -> str:
        devices = {d["device"]: d["reason"] for d in loop.client.rollout(rollout)["devices"]}
        return str(devices[second])

    until("it waits for its window", lambda: "it waits for its update window" in said())
    loop.client.configure(second, own)
    ended = loop.finished(rollout)
    assert ended["status"] == "completed", ended["sentence"]
