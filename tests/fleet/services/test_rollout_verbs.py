"""What operators do with a rollout, through the services and a real controller."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cloud_sync.evidence import Verdict
from cloud_sync.messages import Phase, encode
from cloud_sync.release import Release
from cloud_sync.trust import PayloadType, sign
from edgeml.errors import UserError
from fleet.controller import Controller
from fleet.problem import Conflict, Forbidden, NotFound
from fleet.roles import Role
from fleet.rollouts import Policy
from fleet.rollouts.policy import Gates, Limits, Metric, Wave
from fleet.rollouts.timing import Window
from fleet.services import (
    Caller,
    Services,
    audit,
    blocks,
    devices,
    plans,
    reported,
    rollouts,
    rollups,
)
from tests.fleet.test_controller import Sim, push, settle, sim

__all__ = ["push", "sim"]
Push = Callable[[str], Release]

ALL = Policy(waves=(Wave(percent=100),), soak_s=0.0, limits=Limits(max_failures=0))
ANNA = Caller("anna", "it was agreed")
replace = msgspec.structs.replace


def create(services: Services, caller: Caller, policy: Policy, version: str = "1.0.0") -> str:
    return rollouts.create(services, caller, "digits", version, policy)["id"]


def finish(services: Services, controller: Controller, sim: Sim, rollout: str) -> None:
    """All devices commit, and the rollout completes."""
    settle(controller)
    for name in sim.devices:
        sim.say(name, Phase.COMMITTED)
    settle(controller)
    assert rollouts.show(services, rollout)["status"] == "completed"


def actions(services: Services) -> list[str]:
    return [entry["action"] for entry in audit.entries(services)["items"]]


def test_a_draft_gives_nothing_to_anyone_until_it_is_started(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    made = rollouts.create(services, operator, "digits", "1.0.0", ALL, draft=True)
    settle(controller)
    assert (made["status"], made["waits_for"], made["started_at"]) == ("draft", "start", None)
    assert sim.wanted("cam-1") is None
    rollouts.start(services, operator, made["id"])
    settle(controller)
    assert sim.wanted("cam-1") is not None
    with pytest.raises(Conflict, match="cannot be changed so"):
        rollouts.start(services, operator, made["id"])


def test_each_wave_waits_for_somebody_else_to_approve_it(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    waves = (Wave(count=1), Wave(percent=100))
    rollout = create(services, operator, replace(ALL, waves=waves, approval="each-wave"))
    settle(controller)
    assert rollouts.show(services, rollout)["waits_for"] == "approval"
    assert sim.wanted("cam-1") is None
    with pytest.raises(Forbidden):
        rollouts.approve(services, Caller("operator"), rollout)
    rollouts.approve(services, ANNA, rollout)
    with pytest.raises(Conflict, match="waits for no approval"):
        rollouts.approve(services, ANNA, rollout)
    settle(controller)
    sim.say("cam-1", Phase.COMMITTED)
    settle(controller)
    info = rollouts.show(services, rollout)
    assert (info["wave"], info["waits_for"]) == (2, "approval")
    assert "Wave 2 of 2 (100 %) waits for approval" in info["sentence"]
    assert sim.wanted("cam-2") is None
    rollouts.approve(services, ANNA, rollout)
    settle(controller)
    assert sim.wanted("cam-2") is not None
    assert [a["by"] for a in rollouts.show(services, rollout)["approvals"]] == ["anna", "anna"]


def test_a_failure_pauses_where_the_policy_says_so_and_what_failed_is_tried_again(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    rollout = create(services, operator, replace(ALL, on_failure="pause"))
    settle(controller)
    for name, phase in (("cam-1", Phase.COMMITTED), ("cam-2", Phase.ROLLED_BACK)):
        sim.say(name, phase, "it did badly")
    settle(controller)
    info = rollouts.show(services, rollout)
    assert (info["status"], info["finished_at"]) == ("paused", None)
    assert actions(services)[0] == "rollout.pause"
    with pytest.raises(NotFound, match="cam-1"):
        rollouts.retry(services, operator, rollout, ["cam-1"])
    rollouts.retry(services, operator, rollout)
    settle(controller)
    wanted = sim.wanted("cam-2")
    assert wanted is not None
    assert wanted.attempt == 2
    for name in ("cam-2", "cam-3"):
        sim.say(name, Phase.COMMITTED)
    settle(controller)
    info = rollouts.show(services, rollout)
    assert (info["status"], info["counts"]) == ("completed", {"committed": 3})
    assert {d["device"]: d["tries"] for d in info["devices"]}["cam-2"] == 2


def test_a_halted_rollout_goes_on_when_its_devices_are_tried_again(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    rollout = create(services, operator, ALL)
    settle(controller)
    sim.say("cam-1", Phase.ROLLED_BACK, "it did badly")
    settle(controller)
    assert rollouts.show(services, rollout)["status"] == "halted"
    assert sim.wanted("cam-2") is None
    rollouts.retry(services, operator, rollout)
    finish(services, controller, sim, rollout)


def test_a_rollout_does_not_go_on_with_devices_that_another_has_by_now(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    push("1.1.0")
    first = create(services, operator, ALL)
    settle(controller)
    sim.say("cam-1", Phase.ROLLED_BACK, "it did badly")
    settle(controller)
    second = create(services, operator, ALL, "1.1.0")
    settle(controller)
    with pytest.raises(Conflict, match=f"belongs to {second} by now"):
        rollouts.retry(services, operator, first)


def test_of_two_rollouts_that_want_a_device_one_has_it_whoever_is_tried_again(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    push("1.1.0")
    first = create(services, operator, ALL)
    settle(controller)
    sim.say("cam-1", Phase.ROLLED_BACK, "it did badly")
    settle(controller)
    second = create(services, operator, ALL, "1.1.0")
    rollouts.retry(services, operator, first)  # neither has them; both may have them now
    settle(controller)
    has = [
        {
            d["device"]
            for d in rollouts.show(services, name)["devices"]
            if d["outcome"] == "updating"
        }
        for name in (first, second)
    ]
    assert has == [{"cam-1", "cam-2", "cam-3"}, set()]


def test_only_those_that_failed_get_back_what_they_ran(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    newer = push("1.1.0")
    finish(services, controller, sim, create(services, operator, ALL))
    policy = replace(ALL, on_failure="rollback-failed")
    rollout = create(services, operator, policy, "1.1.0")
    settle(controller)
    sim.say("cam-1", Phase.COMMITTED)
    sim.say("cam-2", Phase.ROLLED_BACK, "it did badly")
    settle(controller)
    assert rollouts.show(services, rollout)["status"] == "halted"
    wanted = {name: sim.wanted(name) for name in sim.devices}
    assert {n: w.release_version if w else "" for n, w in wanted.items()} == {
        "cam-1": "1.1.0",
        "cam-2": "1.0.0",
        "cam-3": "1.1.0",
    }
    assert wanted["cam-1"].release == newer.digest  # type: ignore[union-attr]


def test_an_undecided_gate_is_overridden_with_a_written_reason(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller, kit: Any
) -> None:
    push("1.0.0")
    rollout = create(services, operator, replace(ALL, selector="site=north"))
    settle(controller)
    for name in sim.devices:
        sim.say(name, Phase.COMMITTED, "", kit.gate(Verdict.UNDECIDED, "golden"))
    settle(controller)
    info = rollouts.show(services, rollout)
    assert (info["status"], info["waits_for"]) == ("running", "gate")
    gate = next(
        g["name"] for g in rollouts.explain(services, rollout)["gates"] if g["result"] != "pass"
    )
    with pytest.raises(UserError, match="needs a reason"):
        rollouts.override(services, Caller("anna"), rollout, gate)
    with pytest.raises(NotFound, match="no gate"):
        rollouts.override(services, ANNA, rollout, "nothing")
    rollouts.override(services, ANNA, rollout, gate)
    entry = audit.entries(services)["items"][0]
    assert (entry["action"], entry["actor"]) == ("rollout.override", "anna")
    assert entry["detail"]["gate"] == gate
    settle(controller)
    assert rollouts.show(services, rollout)["status"] == "completed"
    explained = rollouts.explain(services, rollout)["gates"]
    assert "overridden by anna: it was agreed" in str(explained)


@pytest.mark.parametrize(("approval", "alone"), [("before-start", False), (False, True)])
def test_where_approval_is_asked_for_no_approver_overrides_gates_of_their_own_rollout(
    services: Services,
    controller: Controller,
    sim: Sim,
    push: Push,
    kit: Any,
    approval: Any,
    alone: bool,
) -> None:
    alice, bob = (Caller(name, "it is fine", role=Role.APPROVER) for name in ("alice", "bob"))
    push("1.0.0")
    policy = replace(ALL, selector="site=north", approval=approval)
    rollout = create(services, alice, policy)
    if approval:
        rollouts.approve(services, bob, rollout)
    settle(controller)
    for name in sim.devices:
        sim.say(name, Phase.COMMITTED, "", kit.gate(Verdict.UNDECIDED, "golden"))
    settle(controller)
    gates = rollouts.explain(services, rollout)["gates"]
    gate = next(one["name"] for one in gates if one["result"] != "pass")
    if not alone:
        with pytest.raises(Forbidden, match="Nobody overrides a gate of their own rollout"):
            rollouts.override(services, alice, rollout, gate)
    rollouts.override(services, alice if alone else bob, rollout, gate)
    settle(controller)
    assert rollouts.show(services, rollout)["status"] == "completed"


def test_a_completed_rollout_is_taken_back_to_the_version_before_by_its_name(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    push("1.1.0")
    finish(services, controller, sim, create(services, operator, ALL))
    newer = create(services, operator, ALL, "1.1.0")
    finish(services, controller, sim, newer)
    with pytest.raises(NotFound):
        rollouts.rollback(services, operator, newer, "9.9.9")
    back = rollouts.rollback(services, operator, newer)
    assert (back["version"], back["policy"]["membership"]) == ("1.0.0", "fixed")
    finish(services, controller, sim, back["id"])
    assert {w.release_version for n in sim.devices if (w := sim.wanted(n))} == {"1.0.0"}
    with pytest.raises(Conflict, match="nothing to take back"):
        rollouts.rollback(services, operator, newer)


def test_a_rollout_with_fixed_devices_takes_in_nobody_who_joins_later(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    devices.set_labels(services, operator, "cam-3", {"site": "south"})
    policy = replace(ALL, selector="site=north", membership="fixed")
    fixed = create(services, operator, policy)
    devices.set_labels(services, operator, "cam-3", {"site": "north"})
    settle(controller)
    assert sim.wanted("cam-2") is not None
    assert sim.wanted("cam-3") is None
    assert len(rollouts.show(services, fixed)["devices"]) == 2


def test_a_release_that_failed_on_a_class_is_blocked_there_until_somebody_says_why_not(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    create(services, operator, replace(ALL, block_class=True))
    settle(controller)
    sim.say("cam-1", Phase.ROLLED_BACK, "it did badly")
    settle(controller)
    (block,) = blocks.list_blocks(services)
    assert (block["version"], block["blocked_by"]) == ("1.0.0", "controller")
    assert "it did badly" in block["reason"]
    again = create(services, operator, ALL)
    settle(controller)
    assert sim.wanted("cam-2") is None
    planned = plans.plan(services, "digits", "1.0.0", ALL)["devices"]
    assert all("the release is blocked on" in device["reason"] for device in planned)
    name = block["hardware_class"]
    with pytest.raises(UserError, match="reason is needed"):
        blocks.unblock(services, Caller("anna"), "digits", "1.0.0", name)
    assert blocks.unblock(services, ANNA, "digits", "1.0.0", name) == []
    assert actions(services)[0] == "release.unblock"
    finish(services, controller, sim, again)


def test_a_device_that_goes_back_by_itself_after_the_end_is_known_with_its_cause(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller
) -> None:
    push("1.0.0")
    rollout = create(services, operator, ALL)
    finish(services, controller, sim, rollout)
    sim.say("cam-2", Phase.ROLLED_BACK, "the agent crashed 3 times in a row with it")
    info = rollouts.show(services, rollout)
    assert (info["status"], info["counts"]) == ("completed", {"committed": 2, "failed": 1})
    failed = next(d for d in info["devices"] if d["device"] == "cam-2")
    assert failed["reason"] == "the agent crashed 3 times in a row with it"
    rollouts.retry(services, operator, rollout, ["cam-2"])
    settle(controller)
    assert rollouts.show(services, rollout)["status"] == "running"


def test_a_device_is_given_the_release_in_its_window_by_its_own_clock(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller, clock: Any
) -> None:
    push("1.0.0")
    for number, name in enumerate(sim.devices):
        one = sim.devices[name]
        said = replace(one.hello(), utc_offset_s=number * 8 * 3600, counter=number + 1)
        reported.hello(services, name, sign(encode(said), PayloadType.HELLO, one.key))
    clock.now = 1_700_006_400.0  # midnight, UTC
    night = Window(begins="23:00", ends="01:00")
    rollout = create(services, operator, replace(ALL, windows=(night,)))
    settle(controller)
    given = [sim.wanted(name) is not None for name in sim.devices]
    assert given == [True, False, False]
    sim.say("cam-1", Phase.COMMITTED)
    settle(controller)
    info = rollouts.show(services, rollout)
    assert (info["waits_for"], info["until"]) == ("window", clock.now + 7 * 3600)
    clock.now += 7 * 3600
    settle(controller)
    assert [sim.wanted(name) is not None for name in sim.devices] == [True, False, True]


def test_a_gate_over_what_devices_report_waits_for_enough_of_it_and_then_decides(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller, kit: Any
) -> None:
    push("1.0.0")
    sure = Metric(name="confident_share", min=0.8, min_samples=20)
    gates = Gates(min_evidence=3, metrics=(sure,))
    rollout = create(services, operator, replace(ALL, gates=gates))
    settle(controller)
    for name in sim.devices:
        sim.say(name, Phase.COMMITTED)
    settle(controller)
    info = rollouts.show(services, rollout)
    assert info["waits_for"] == "gate"
    assert "3 devices with 20 samples would decide it" in info["sentence"]
    for name, confident in (("cam-1", 95), ("cam-2", 96), ("cam-3", 30)):
        sim.report(name, inferred=100, confident=confident)
    rollups.fold_all(services)
    settle(controller)
    info = rollouts.show(services, rollout)
    assert info["status"] == "halted"
    assert "cam-3 is beyond a bound: confident_share is 0.3 on 100 samples" in info["sentence"]


def test_rollouts_are_listed_in_pages_with_counts_and_without_devices(
    services: Services, controller: Controller, sim: Sim, push: Push, operator: Caller, clock: Any
) -> None:
    push("1.0.0")
    made = []
    for _ in range(3):
        clock.now += 1
        made.append(create(services, operator, ALL))
    settle(controller)
    first = rollouts.page(services, limit=2)
    rest = rollouts.page(services, limit=2, after=first["next"] or "")
    listed = [*first["items"], *rest["items"]]
    assert [info["id"] for info in listed] == made[::-1]
    assert rest["next"] is None
    assert listed[-1]["counts"] == {"updating": 3}
    assert listed[-1]["devices"] == []
