"""Devices of one site switch together or not at all, in real processes that are killed."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, until

pytestmark = pytest.mark.e2e
DEVICES = ("cam-1", "cam-2")
# A busy machine's latency is no fault of a release.
POLICY = """
soak_s = 0
[[waves]]
percent = 100
[gates]
latency_slack_ms = 10000
[together]
label = "site"
prepare_timeout_s = 300
commit_timeout_s = {commit}
switch_after_s = 1
[trial]
soak_s = 1
min_inferred = 5
timeout_s = {trial}
latency_slack_ms = 10000
"""


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    made = Loop(tmp_path)
    made.start_fleet()
    for device in DEVICES:
        made.enroll(device)
        made.start_agent(device)
    yield made
    made.close()


def roll_out(loop: Loop, version: str, *, commit: int = 300, trial: int = 200) -> str:
    layout, _ = make_release(loop.folder / version, version)
    loop.client.push(layout.folder)
    policy = POLICY.format(commit=commit, trial=trial)
    return str(loop.client.create_rollout("toy", version, policy=policy)["id"])


def model(loop: Loop, device: str) -> dict[str, Any]:
    models: dict[str, Any] = (loop.client.device(device)["reported"] or {}).get("models", {})
    found: dict[str, Any] = models.get("toy", {})
    return found


def assert_all_run(loop: Loop, version: str) -> None:
    def same() -> bool:
        return {model(loop, device).get("running_version") for device in DEVICES} == {version}

    until(f"{version} on all", same)


def switch_window(loop: Loop, version: str) -> float:
    """Seconds between the first results of a release on the first and on the last device."""
    first: dict[str, float] = {}

    def all_switched() -> bool:
        for device in DEVICES:
            path = loop.folder / device / "results.jsonl"
            if device not in first and path.exists() and f'"{version}"' in path.read_text():
                first[device] = time.monotonic()
        return len(first) == len(DEVICES)

    until(f"{version} on all", all_switched)
    return max(first.values()) - min(first.values())


def restart_to_die_at(loop: Loop, device: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.kill(device)
    monkeypatch.setenv("EDGEML_FAILPOINT", f"{place}:kill")
    loop.start_agent(device)
    monkeypatch.delenv("EDGEML_FAILPOINT")


def test_a_member_that_dies_before_it_switches_is_waited_for_and_one_that_fails_takes_all_back(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = roll_out(loop, "1.0.0")
    window = switch_window(loop, "1.0.0")
    sys.stderr.write(f"both run it within {window * 1000:.0f} ms (looked at every 50 ms)\n")
    ended = loop.finished(rollout)
    assert ended["status"] == "completed", ended["sentence"]

    restart_to_die_at(loop, "cam-2", "switching", monkeypatch)
    rollout = roll_out(loop, "1.0.1")
    until("cam-2 to die", lambda: not loop.is_running("cam-2"))
    until(
        "cam-1 to wait for cam-2",
        lambda: "1 of 2 to pass their trials (cam-2)" in loop.client.rollout(rollout)["sentence"],
    )
    assert {model(loop, device)["running_version"] for device in DEVICES} == {"1.0.0"}
    loop.bury("cam-2")
    loop.start_agent("cam-2")
    ended = loop.finished(rollout)
    assert ended["status"] == "completed", ended["sentence"]
    assert_all_run(loop, "1.0.1")

    # Without frames its trial cannot pass.
    loop.client.configure("cam-2", {"sources": [], "telemetry_every_s": 1.0})
    rollout = roll_out(loop, "1.0.2", trial=6)
    ended = loop.finished(rollout)
    assert ended["status"] == "halted", ended["sentence"]
    until("cam-1 to go back", lambda: model(loop, "cam-1").get("phase") == "committed")
    assert_all_run(loop, "1.0.1")
    assert "1.0.2" in {line["release_version"] for line in loop.results("cam-1")}


@pytest.mark.nightly
def test_a_member_that_never_comes_takes_the_group_back_and_ends_as_it_did_when_it_comes(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loop.finished(roll_out(loop, "1.0.0"))["status"] == "completed"
    restart_to_die_at(loop, "cam-2", "switching", monkeypatch)
    rollout = roll_out(loop, "1.0.1", commit=15)
    ended = loop.finished(rollout)
    assert ended["status"] == "halted", ended["sentence"]
    assert "cam-2 has not passed its trial within 15 s" in ended["sentence"]
    until("cam-1 to go back", lambda: model(loop, "cam-1").get("phase") == "committed")
    loop.bury("cam-2")
    loop.start_agent("cam-2")
    until("cam-2", lambda: model(loop, "cam-2").get("phase") == "committed")
    assert_all_run(loop, "1.0.0")
    assert "1.0.1" not in {line["release_version"] for line in loop.results("cam-2")}
