"""The whole loop, with the faults that it must stand."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.errors import ExitCode
from tests.cloud_sync.releases import make_release
from tests.e2e.loop import Loop, until

pytestmark = pytest.mark.e2e
DEVICES = ("cam-1", "cam-2")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    made = Loop(tmp_path)
    made.start_fleet()
    for device in DEVICES:
        made.enroll(device)
        made.start_agent(device)
    yield made
    made.close()


def push(loop: Loop, version: str) -> None:
    layout, _ = make_release(loop.folder / version, version)
    loop.client.push(layout.folder)


def running(loop: Loop) -> dict[str, str]:
    found = {}
    for device in loop.client.devices():
        models = (device["reported"] or {}).get("models", {})
        found[device["device"]] = models.get("toy", {}).get("running_version", "")
    return found


def test_kill_9_of_an_agent_in_its_trial_and_of_the_fleet_in_mid_rollout_completes_it(
    loop: Loop,
) -> None:
    push(loop, "1.0.0")
    rollout = loop.roll_out("1.0.0")
    until("the canary's trial", lambda: "trial" in loop.phases(rollout).values())
    [canary] = [d for d, phase in loop.phases(rollout).items() if phase == "trial"]
    loop.kill(canary)
    loop.start_agent(canary)
    until(
        "the second wave",
        lambda: sum(p not in {"None", ""} for p in loop.phases(rollout).values()) > 1,
    )
    loop.kill("fleet")
    loop.start_fleet()
    ended = loop.finished(rollout)
    assert ended["status"] == "completed", ended["sentence"]
    assert running(loop) == dict.fromkeys(DEVICES, "1.0.0")

    push(loop, "1.0.1")
    second = loop.finished(loop.roll_out("1.0.1"))
    assert second["status"] == "completed", second["sentence"]
    versions = {line["release_version"] for line in loop.results("cam-1")}
    assert versions == {"1.0.0", "1.0.1"}


def test_a_damaged_blob_is_refused_and_the_old_release_stays(loop: Loop) -> None:
    push(loop, "1.0.0")
    assert loop.finished(loop.roll_out("1.0.0"))["status"] == "completed"
    layout, release = make_release(loop.folder / "2", "2.0.0", seed=9)
    loop.client.push(layout.folder)
    digest = release.variants[0].file("model").digest
    [blob] = (loop.folder / "fleet").rglob(digest.removeprefix("sha256:"))
    data = bytearray(blob.read_bytes())
    data[-1] ^= 0xFF
    blob.chmod(0o644)
    blob.write_bytes(data)
    rollout = loop.roll_out("2.0.0")
    until("the canary to refuse it", lambda: "refused" in loop.phases(rollout).values())
    [refusal] = [d for d in loop.client.rollout(rollout)["devices"] if d["phase"] == "refused"]
    assert "is not what its release says" in refusal["reason"]
    assert running(loop) == dict.fromkeys(DEVICES, "1.0.0")


def test_a_port_in_use_is_found_out_before_anything_starts(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = loop.run("fleet", "up", "--data", str(tmp_path / "fleet"), "--device-port", port)
    assert done.returncode == ExitCode.USAGE
    assert "--device-port" in done.stderr
    assert port in done.stderr


def test_agents_and_fleet_end_cleanly_when_they_are_asked_to(loop: Loop) -> None:
    until("the devices", lambda: all(d["online"] for d in loop.client.devices()))
    assert loop.stop("cam-1") == 0
    until("it to be offline", lambda: not loop.client.device("cam-1")["online"])
    assert loop.stop("fleet") == 0
