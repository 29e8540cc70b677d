"""A change of a layer in waves over real agents: taken, refused with the reason, given back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.messages import Configuration
from edge_agent.update.journal import read_state
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
    first = change(loop, {"max_download_bytes_s": 123_456}, selector="site=test")
    loop.kill("fleet")
    loop.start_fleet()
    ended = loop.finished(first)
    assert (ended["status"], ended["kind"]) == ("completed", "configuration"), ended["sentence"]
    for device in DEVICES:
        assert committed(loop, device).max_download_bytes_s == 123_456
        shown = loop.client.configuration(device)
        origins = {s["key"]: s["origin"] for s in shown["settings"]}
        assert origins["max_download_bytes_s"] == "north@1"
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
