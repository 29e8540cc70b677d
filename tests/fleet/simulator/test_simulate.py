"""A hundred simulated devices and a real fleet: process, broker, certificates, bytes."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cloud_sync.evidence import Verification
from cloud_sync.release import Layout, ReleaseBuilder, write_atomically
from edgeml.errors import UserError
from fleet.simulator import update
from fleet.simulator.hardware_classes import read_classes
from fleet.simulator.identities import Identities
from fleet.simulator.population import Fault
from fleet.simulator.running import Options, Simulator
from fleet.simulator.tally import Summary
from hardware.profiles import select
from tests.e2e.loop import Loop, until

pytestmark = pytest.mark.e2e
KINDS = read_classes()
SIZE = 300_000
POLICY = """
selector = "{selector}"
soak_s = 0
[[waves]]
count = 8
[[waves]]
percent = 25
[[waves]]
percent = 100
[gates]
latency_slack_ms = 10000
[trial]
soak_s = 0
min_inferred = 5
latency_slack_ms = 10000
[limits]
max_failures = {failures}
"""


ALL_AT_ONCE = "soak_s = 0\n[[waves]]\npercent = 100\n"


def far_window() -> dict[str, str]:
    """A window that opens in about twelve hours of this machine's time."""
    hours = [time.localtime(time.time() + hours * 3600).tm_hour for hours in (12, 13)]
    return {"begins": f"{hours[0]:02}:00", "ends": f"{hours[1]:02}:00"}


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    made = Loop(tmp_path_factory.mktemp("fleet"))
    try:
        made.start_fleet()
        builder = ReleaseBuilder("toy", "1.0.0")
        for rank, profile in enumerate(select(["cpu"])):
            builder.add_variant(
                target=profile.name, rank=rank, requires=profile.requirements(),
                format="onnx", precision="int8", quantization="",
                verification=Verification.ARTIFACT_EXECUTED,
                files={"model": ("model.onnx", bytes([rank]) * SIZE)},
            )  # fmt: skip
        layout = Layout.create(made.folder / "release")
        builder.write(layout)
        made.client.push(layout.folder)
        yield made
    finally:
        made.close()


@contextmanager
def simulated(
    loop: Loop, group: str, devices: int, tokens: Any = None, kinds: Any = KINDS, **more: Any
) -> Iterator[Callable[[], Summary]]:
    """Simulated devices in a thread, all connected; gives what tells how they are."""

    def made(wanted: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
        found = loop.client.enroll_many(wanted, 600)
        return {one["device"]: one["token"] for one in found}

    options = Options(
        fleet=f"http://127.0.0.1:{loop.ports[1]}",
        identities=loop.folder / f"simulated-{group}",
        devices=devices,
        prefix=group,
        labels={"group": group},
        fps=100.0,
        telemetry_s=0.0,
        **more,
    )
    simulator = Simulator(options, kinds, tokens or made)
    stop, events = asyncio.Event(), asyncio.new_event_loop()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            events.run_until_complete(simulator.run(stop))
        except BaseException as error:  # noqa: BLE001 -- the test shows it
            failed.append(error)
        finally:
            events.close()

    def seen() -> Summary:
        assert not failed, failed
        return simulator.summary()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until("all simulated devices", lambda: seen().connected == devices)
        yield seen
    finally:
        if thread.is_alive():
            events.call_soon_threadsafe(stop.set)
        thread.join(60)
    assert not failed, failed


def roll_out(loop: Loop, group: str, failures: int = 0) -> str:
    policy = POLICY.format(selector=f"group={group}", failures=failures)
    return str(loop.client.create_rollout("toy", "1.0.0", policy=policy)["id"])


def test_a_staged_rollout_ends_as_the_faults_decide(loop: Loop) -> None:
    faults = {
        Fault.FAILS_TEST: 0.04, Fault.CRASHES: 0.03, Fault.REFUSES: 0.05,
        Fault.LATE: 0.05, Fault.CLOCK_OFF: 0.05,
    }  # fmt: skip
    with simulated(loop, "all", 100, faults=faults, late_s=1.0, tuf=True) as seen:
        found = loop.finished(roll_out(loop, "all", failures=7))
        assert found["status"] == "completed", found["sentence"]
        phases = [str(device["phase"]) for device in found["devices"]]
        assert phases.count("committed") == 88
        assert phases.count("rolled_back") == 7
        assert seen().phases == {"committed": 88, "rolled_back": 7, "refused": 5}
        # Whoever crashed or failed has the bytes, too: they are verified before the test.
        assert seen().downloaded_bytes == 95 * SIZE
        until("all acknowledgements", lambda: not seen().waiting_records)
        cost = loop.client.cost(found["id"])
        assert (cost["bytes"], len(cost["devices"])) == (95 * SIZE, 95)
    reasons = {d["reason"] for d in found["devices"] if str(d["phase"]) == "rolled_back"}
    assert any("the agent had to start 3 times" in reason for reason in reasons)
    assert any("largest difference" in reason for reason in reasons)


def test_forged_evidence_is_refused_and_holds_the_wave(loop: Loop) -> None:
    with simulated(loop, "liars", 6, faults={Fault.LIES: 0.5}) as seen:
        rollout = roll_out(loop, "liars")
        until("the commits", lambda: seen().phases.get("committed") == 6)

        def forged() -> set[str]:
            events = loop.client.security_events()
            return {str(e["device"]) for e in events if e["kind"] == "forged-batch"}

        until("the forgeries", lambda: len(forged()) == 3)
        found = loop.client.rollout(rollout)
        assert found["status"] == "running", found["sentence"]
        loop.client.abort(rollout, "seen enough")


def test_a_later_run_goes_on_with_the_same_devices(loop: Loop) -> None:
    with simulated(loop, "kept", 5) as seen:
        found = loop.finished(roll_out(loop, "kept"))
        assert found["status"] == "completed", found["sentence"]
        assert seen().running == {"toy:1.0.0": 5}

    def none(wanted: Any) -> dict[str, str]:
        raise AssertionError(f"{wanted} would be enrolled again")

    with simulated(loop, "kept", 5, tokens=none) as seen:
        until("their hellos", lambda: seen().running == {"toy:1.0.0": 5})
        assert seen().downloads == 0


def test_a_device_without_the_budget_waits_and_says_for_what(loop: Loop) -> None:
    with simulated(loop, "poor", 2, faults={Fault.SMALL_BUDGET: 1.0}):
        rollout = roll_out(loop, "poor")

        def reasons() -> list[str]:
            return [str(d["reason"]) for d in loop.client.rollout(rollout)["devices"]]

        until("their reason", lambda: any("budget: about 0.34 MB" in r for r in reasons()))
        loop.client.abort(rollout, "seen enough")


def test_a_device_that_refused_for_damaged_metadata_goes_on_when_they_are_whole(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "RETRY_S", (0.01, 0.02))
    monkeypatch.setattr(update, "LOOK_S", (0.01, 0.2))
    signed = loop.folder / "fleet" / "trust" / "metadata" / "timestamp.json"
    whole = signed.read_bytes()
    said = json.loads(whole)
    said["signatures"][0]["sig"] = "00" * 64
    rollout = roll_out(loop, "damaged")  # by a fleet that can still read its own metadata

    def told() -> str:
        return str(loop.client.rollout(rollout)["devices"][0]["reason"])

    write_atomically(signed, json.dumps(said).encode())
    try:
        with simulated(loop, "damaged", 1, tuf=True) as seen:
            until("its refusal", lambda: seen().phases == {"refused": 1})
            until("why", lambda: "Too few of the keys that must sign it did" in told())
            assert not seen().downloads
            write_atomically(signed, whole)
            until("its commit", lambda: seen().phases == {"committed": 1})
    finally:
        write_atomically(signed, whole)


def test_a_site_switches_together_in_its_window_and_one_that_fails_takes_it_back(
    loop: Loop,
) -> None:
    faults = {Fault.FAILS_TEST: 0.12}  # one of the nine
    with simulated(loop, "joint", 9, kinds=KINDS[:1], sites=3, faults=faults) as seen:
        sites = {
            d["device"]: d["labels"]["site"] for d in loop.client.devices(selector="group=joint")
        }
        closed = far_window()
        loop.client.change_layer(
            "joint", {"update_windows": [closed]}, ALL_AT_ONCE, selector="group=joint"
        )
        until(
            "the window",
            lambda: all(loop.client.configuration(d)["status"] == "committed" for d in sites),
        )
        policy = f"""{POLICY.format(selector="group=joint", failures=9)}
[together]
label = "site"
switch_after_s = 0
"""
        rollout = str(loop.client.create_rollout("toy", "1.0.0", policy=policy)["id"])
        until(
            "the closed window in its sentence",
            lambda: "the update windows of their" in loop.client.rollout(rollout)["sentence"],
        )
        assert "trial" not in seen().phases
        opened = {"begins": "00:00", "ends": "00:00"}
        loop.client.change_layer("joint", {"update_windows": [opened]}, ALL_AT_ONCE)
        found = loop.finished(rollout)
        assert found["status"] == "completed", found["sentence"]
    phases: dict[str, set[str]] = {}
    for device in found["devices"]:
        phases.setdefault(sites[device["device"]], set()).add(str(device["phase"]))
    gone = [site for site, seen_there in phases.items() if seen_there != {"committed"}]
    assert len(gone) == 1, phases
    assert "committed" not in phases[gone[0]]


def test_simulated_devices_follow_a_rotated_director(loop: Loop) -> None:
    with simulated(loop, "rotated", 3) as seen:
        loop.client.trust_rotate_key("director", "a test")
        found = loop.finished(roll_out(loop, "rotated"))
        assert found["status"] == "completed", found["sentence"]
        assert seen().running == {"toy:1.0.0": 3}


def test_the_command_tells_how_it_went_and_ends_at_ctrl_c(loop: Loop) -> None:
    command = [
        *(sys.executable, "-m", "edgeml.cli", "simulate", "--devices", "3", "--json"),
        *("--devices-url", f"http://127.0.0.1:{loop.ports[1]}", "--prefix", "command"),
        *("--fleet", f"http://127.0.0.1:{loop.ports[0]}", "--data", str(loop.folder / "fleet")),
        *("--identities", str(loop.folder / "command"), "--telemetry", "0"),
    ]
    log = loop.folder / "command.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        try:
            until("the devices", lambda: "3 of 3 connected" in log.read_text())
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    assert json.loads(out)["connected"] == 3


def test_a_folder_belongs_to_one_fleet_and_its_keys_to_its_owner(tmp_path: Path) -> None:
    Identities(tmp_path, "http://127.0.0.1:1").close()
    assert (tmp_path / "identities.db").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UserError, match="belong to another fleet") as error:
        Identities(tmp_path, "http://127.0.0.1:2")
    assert "--identities" in error.value.fix
