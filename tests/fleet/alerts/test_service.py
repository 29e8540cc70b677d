"""Alerts as they are found in a real fleet's database."""

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.release import Layout
from edgeml.errors import UserError
from fleet.alerts.watch import AlertWatch
from fleet.db import tables
from fleet.problem import Changed, Conflict, NotFound
from fleet.rest.etags import etag_of
from fleet.rollouts import Decision, Policy, RolloutStatus
from fleet.rollouts.selector import parse_selector
from fleet.services import (
    alerts,
    releases,
    rollout_rows,
    rollouts,
    security,
    trust,
    webhooks,
)
from fleet.services.context import Caller
from fleet.trust.changes import RoleKeys


def firing(services: Any, **given: Any) -> list[tuple[str, str]]:
    found = alerts.list_alerts(services, state="firing", **given)["items"]
    return sorted((a["kind"], a["subject"]) for a in found)


def heard(services: Any, device: str, at: float) -> None:
    with services.database.write() as session:
        session.get_one(tables.Device, device).last_seen = at


@pytest.fixture
def quiet(services: Any, operator: Caller) -> None:
    """The disk of the machine that tests is not what is tested."""
    alerts.set_rules(services, operator, {"disk_free_share": 0})


def test_a_silent_device_fires_once_and_is_resolved_when_it_speaks(
    services: Any, quiet: None, enroll: Any, tmp_path: Path, clock: Any
) -> None:
    enroll(services, tmp_path, "cam-1")
    assert alerts.look(services) == 0
    clock.now += 901
    assert alerts.look(services) == 1
    assert alerts.look(services) == 0
    assert firing(services) == [("device-offline", "cam-1")]
    heard(services, "cam-1", clock.now)
    assert alerts.look(services) == 1
    [one] = alerts.list_alerts(services)["items"]
    assert (one["state"], one["resolved_at"]) == ("resolved", clock.now)
    clock.now += 901
    alerts.look(services)
    assert [a["state"] for a in alerts.list_alerts(services)["items"]] == ["firing", "resolved"]


def test_many_silent_devices_are_one_alert(
    services: Any, operator: Caller, enroll: Any, tmp_path: Path, clock: Any
) -> None:
    rules = {"disk_free_share": 0, "device_offline_each": 2}
    alerts.set_rules(services, operator, rules)
    for number in range(3):
        enroll(services, tmp_path, f"cam-{number}")
    clock.now += 901
    alerts.look(services)
    assert firing(services) == [("devices-offline", "fleet")]
    heard(services, "cam-0", clock.now)
    alerts.look(services)
    assert firing(services) == [("device-offline", "cam-1"), ("device-offline", "cam-2")]


def test_a_security_event_fires_for_a_day(services: Any, quiet: None, clock: Any) -> None:
    security.record(services, "forged-hello", "cam-9", "The signature is not the device's.")
    alerts.look(services)
    assert firing(services) == [("security-event", "cam-9")]
    clock.now += 86401
    alerts.look(services)
    assert firing(services) == []


def test_an_acknowledgement_needs_a_reason_and_a_firing_alert(
    services: Any, quiet: None, clock: Any
) -> None:
    security.record(services, "forged-hello", "cam-9", "")
    alerts.look(services)
    [one] = alerts.list_alerts(services)["items"]
    with pytest.raises(UserError):
        alerts.acknowledge(services, Caller("alice"), one["id"])
    known = alerts.acknowledge(services, Caller("alice", "I drive there."), one["id"])
    assert (known["acknowledged_by"], known["acknowledged_reason"]) == ("alice", "I drive there.")
    assert known["state"] == "firing"
    clock.now += 86401
    alerts.look(services)
    with pytest.raises(Conflict):
        alerts.acknowledge(services, Caller("alice", "Too late."), one["id"])
    with pytest.raises(NotFound):
        alerts.acknowledge(services, Caller("alice", "What?"), 10_000)


def test_what_changes_is_in_the_outbox_in_the_same_moment(
    services: Any, quiet: None, operator: Caller, clock: Any
) -> None:
    hook = webhooks.add(services, operator, "https://hooks.example/x", ["dev.edgeml.alert.*"])
    security.record(services, "forged-hello", "cam-9", "")
    alerts.look(services)
    [one] = alerts.list_alerts(services)["items"]
    alerts.acknowledge(services, operator, one["id"])
    clock.now += 86401
    alerts.look(services)
    sent = webhooks.deliveries(services, hook["id"])["items"]
    ends = [delivery["type"].rpartition(".")[2] for delivery in reversed(sent)]
    assert ends == ["firing", "acknowledged", "resolved"]
    with services.database.read() as session:
        body = json.loads(session.get_one(tables.Delivery, sent[-1]["id"]).body)
    assert body["data"]["subject"] == "cam-9"


def test_a_team_sees_the_alerts_of_its_own_devices(
    services: Any, quiet: None, enroll: Any, tmp_path: Path, clock: Any
) -> None:
    enroll(services, tmp_path, "cam-1", site="north")
    enroll(services, tmp_path, "cam-2", site="south")
    clock.now += 901
    alerts.look(services)
    north = parse_selector("site=north")
    assert firing(services, scope=north) == [("device-offline", "cam-1")]
    other = alerts.list_alerts(services, kind="device-offline")["items"][0]["id"]
    visible = {a["id"] for a in alerts.list_alerts(services, scope=north)["items"]}
    [hidden] = {other, *visible} - visible or {0}
    if hidden:
        with pytest.raises(NotFound):
            alerts.show(services, hidden, north)


def test_rules_that_somebody_else_changed_are_not_overwritten(
    services: Any, operator: Caller
) -> None:
    read = etag_of(alerts.rules(services))
    alerts.set_rules(services, operator, {"expiry_s": 5}, if_match=read)
    with pytest.raises(Changed):
        alerts.set_rules(services, operator, {"expiry_s": 6}, if_match=read)
    assert alerts.rules(services)["expiry_s"] == 5


def test_pages_of_alerts_neither_repeat_nor_leave_out_what_was_there(
    services: Any, quiet: None
) -> None:
    for number in range(5):
        security.record(services, "forged-hello", f"cam-{number}", "")
    alerts.look(services)
    page = alerts.list_alerts(services, limit=2)
    seen = [a["id"] for a in page["items"]]
    security.record(services, "forged-hello", "cam-new", "")
    alerts.look(services)
    while page["next"]:
        page = alerts.list_alerts(services, limit=2, after=int(page["next"]))
        seen += [a["id"] for a in page["items"]]
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == 5


@pytest.fixture
def rollout(services: Any, release_folder: Path, operator: Caller) -> str:
    layout = Layout.open(release_folder)
    for digest in layout.blobs.all():
        services.registry.blobs.put(layout.blobs.path(digest).read_bytes())
    releases.register(services, operator, "digits", layout.release().digest)
    return rollouts.create(services, operator, "digits", "1.0.0", Policy())["id"]


def stand(services: Any, rollout: str, status: RolloutStatus, *gates: GateResult) -> None:
    """Have the engine's own values say where a rollout stands."""
    with services.database.write() as session:
        row = session.get_one(tables.Rollout, rollout)
        state = msgspec.structs.replace(
            rollout_rows.state_of(row), status=status, reason="A gate failed."
        )
        decision = Decision(actions=(), sentence="A gate failed.", gates=gates)
        rollout_rows.keep(row, state, decision)


def test_a_rollout_that_stopped_by_itself_fires_until_the_next_one(
    services: Any, quiet: None, operator: Caller, rollout: str, clock: Any
) -> None:
    alerts.look(services)
    assert firing(services) == []
    failed = GateResult(name="golden", result=Verdict.FAIL, reason="3 of 10 differ.")
    for status in (RolloutStatus.HALTED, RolloutStatus.PAUSED):
        stand(services, rollout, status, failed)
        alerts.look(services)
        assert firing(services) == [("gate-failed", rollout), ("rollout-halted", rollout)]
    clock.now += 1
    rollouts.create(services, operator, "digits", "1.0.0", Policy())
    alerts.look(services)
    assert firing(services) == []


def test_a_rollout_that_a_person_paused_fires_nothing(
    services: Any, quiet: None, operator: Caller, rollout: str
) -> None:
    rollouts.pause(services, operator, rollout)
    alerts.look(services)
    assert firing(services) == []


def test_what_the_fleet_did_not_renew_in_time_fires(
    services: Any, quiet: None, operator: Caller, clock: Any
) -> None:
    nobody = RoleKeys(keys={}, threshold=1)
    trust.init(services, operator, nobody, nobody)
    alerts.look(services)
    assert firing(services) == []
    clock.now += 6 * 86400.0
    alerts.look(services)
    assert {subject for _, subject in firing(services)} == {
        "The signed snapshot",
        "The signed timestamp",
    }


def test_a_watch_looks_by_itself(services: Any, quiet: None) -> None:
    security.record(services, "forged-hello", "cam-9", "")
    watch = AlertWatch(services, every_s=0.05)
    watch.start()
    try:
        end = time.monotonic() + 60
        while not firing(services):
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        watch.stop()
