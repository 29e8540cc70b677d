from typing import Any

import pytest

from cloud_sync.evidence import Verdict
from cloud_sync.messages import Phase
from fleet.rollouts import (
    Advance,
    Assign,
    Complete,
    DeviceObservation,
    Halt,
    Policy,
    Restore,
    RolloutState,
    RolloutStatus,
    decide,
)
from fleet.rollouts.decide import wave_devices
from fleet.rollouts.observe import Hold
from fleet.rollouts.policy import Gates, Limits, Wave
from tests.fleet.rollouts.observed import (
    NOW,
    committed,
    device,
    gate,
    given,
    latency,
    rolled_back,
    state,
)

POLICY = Policy(waves=(Wave(count=1), Wave(percent=100)), soak_s=60.0)
TOLERANT = Policy(waves=(Wave(count=3),), limits=Limits(max_failures=1))


def test_the_canary_alone_is_given_the_release_first() -> None:
    decision = decide(POLICY, state(), [device("b"), device("a")], NOW)
    assert decision.actions == (Assign(device="a", variant="sha256:v"),)
    assert "wave 1 of 2" in decision.sentence


def test_a_wave_whose_gates_pass_begins_its_soak() -> None:
    decision = decide(POLICY, state(), [committed("a"), device("b")], NOW)
    assert decision.actions == (Hold(since=NOW),)


def test_a_wave_advances_when_the_soak_is_over_and_not_before() -> None:
    devices = [committed("a"), device("b")]
    early = decide(POLICY, state(wave_held_since=NOW - 59), devices, NOW)
    late = decide(POLICY, state(wave_held_since=NOW - 60), devices, NOW)
    assert early.actions == ()
    assert "1 of 60 s more" in early.sentence
    assert late.actions == (Advance(wave=1),)


def test_the_last_wave_completes_the_rollout() -> None:
    devices = [committed("a"), committed("b")]
    decision = decide(POLICY, state(wave=1, wave_held_since=NOW - 60), devices, NOW)
    assert decision.actions == (Complete(),)
    assert decision.sentence.startswith("digits:1.1.0 is on 2 devices and held")


def test_a_wave_that_would_reach_nobody_new_is_passed_over() -> None:
    policy = Policy(waves=(Wave(count=1), Wave(percent=5), Wave(percent=50), Wave(percent=100)))
    two = [committed("a"), device("b"), device("c")]
    one = decide(policy, state(wave_held_since=NOW - 60), two, NOW)
    all_ = decide(policy, state(wave_held_since=NOW - 60), [committed("a")], NOW)
    assert one.actions == (Advance(wave=2),)
    assert all_.actions == (Complete(),)


def test_a_late_joiner_ends_the_soak_and_is_given_the_release() -> None:
    devices = [committed("a"), committed("b"), device("c")]
    decision = decide(POLICY, state(wave=1, wave_held_since=NOW - 1), devices, NOW)
    assert decision.actions == (Assign(device="c", variant="sha256:v"), Hold(since=None))


def test_a_device_that_rolled_back_halts_the_rollout_and_says_why() -> None:
    decision = decide(POLICY, state(), [rolled_back("a", "3 % of 60 were sure")], NOW)
    (halt,) = decision.actions
    assert isinstance(halt, Halt)
    assert halt.reason == decision.sentence
    assert decision.sentence == (
        "digits:1.1.0 was halted in wave 1 of 2 (1 device): 1 of 1 device failed, none may "
        "(a rolled back: 3 % of 60 were sure). "
        "Every device that it touched was told to go back to what it ran before."
    )


@pytest.mark.parametrize(
    ("failing", "why"),
    [
        (committed("a", gate(Verdict.FAIL, reason="differs by 3")), "differs by 3"),
        (committed("a", latency(40.0, 2.0)), "40.00 ms"),
        (given("a", Phase.DOWNLOADING, assigned_at=NOW - 3601), "has not committed within 3600 s"),
        (
            given("a", Phase.COMMITTED, assigned_at=NOW - 3601),
            "sent no evidence within 3600 s that it had signed itself",
        ),
        (given("a", assigned_at=NOW - 3601), "has not committed within 3600 s"),
    ],
    ids=["lies", "slow", "vanished", "silent", "never answered"],
)
def test_what_counts_as_a_failure(failing: DeviceObservation, why: str) -> None:
    decision = decide(POLICY, state(), [failing], NOW)
    assert isinstance(decision.actions[0], Halt)
    assert why in decision.sentence


def test_failures_within_the_limit_are_tolerated() -> None:
    devices = [committed("a"), committed("b"), rolled_back("c")]
    assert decide(TOLERANT, state(), devices, NOW).actions == (Hold(since=NOW),)


def test_a_device_that_commits_against_its_own_evidence_is_a_failure_that_can_be_tolerated() -> (
    None
):
    devices = [committed("a"), committed("b"), committed("c", gate(Verdict.FAIL))]
    decision = decide(TOLERANT, state(), devices, NOW)
    assert decision.actions == (Hold(since=NOW),)
    assert "c committed, but golden.outputs fails" in decision.gates[0].reason


def test_failures_above_the_limit_are_not() -> None:
    devices = [committed("a"), rolled_back("b"), rolled_back("c")]
    assert isinstance(decide(TOLERANT, state(), devices, NOW).actions[0], Halt)


def test_a_tolerated_failure_hides_no_doubt_about_another_device() -> None:
    doubtful = committed("b", gate(Verdict.UNDECIDED, n=5, n_needed=50))
    devices = [committed("a"), doubtful, rolled_back("c", gates=(gate(Verdict.FAIL),))]
    decision = decide(TOLERANT, state(), devices, NOW)
    assert decision.actions == ()
    assert "50 samples would decide it, there are 5" in decision.sentence


def test_a_class_that_can_give_no_evidence_any_more_halts() -> None:
    devices = [committed("a"), committed("b"), rolled_back("c", hardware_class="arm")]
    decision = decide(TOLERANT, state(), devices, NOW)
    assert isinstance(decision.actions[0], Halt)
    assert "0 of 1 device of arm committed with evidence, 1 must and no more can" in (
        decision.sentence
    )


def test_a_commit_without_evidence_waits_for_it() -> None:
    decision = decide(POLICY, state(), [given("a", Phase.COMMITTED)], NOW)
    assert decision.actions == ()
    assert "its evidence is awaited" in decision.sentence


def test_a_device_that_ran_the_release_before_owes_no_evidence() -> None:
    devices = [given("a", Phase.COMMITTED, previous="sha256:new")]
    assert decide(POLICY, state(), devices, NOW).actions == (Hold(since=NOW),)


def test_a_refusal_with_a_new_plan_is_planned_anew() -> None:
    refused = given("a", Phase.REFUSED, variant="sha256:other", assigned_at=NOW - 9999)
    decision = decide(POLICY, state(), [refused], NOW)
    assert decision.actions == (Assign(device="a", variant="sha256:other"),)


def test_a_refusal_with_the_same_plan_is_no_failure_and_holds_nobody_up() -> None:
    refused = given("a", Phase.REFUSED, reason="the disk is full", assigned_at=NOW - 9999)
    decision = decide(POLICY, state(), [refused, device("b")], NOW)
    assert decision.actions == (Assign(device="b", variant="sha256:v"),)
    end = decide(POLICY, state(wave_held_since=NOW - 60), [refused, committed("b")], NOW)
    assert end.actions == (Complete(),)
    assert "1 device selected cannot take it, a refused it: the disk is full." in end.sentence


def test_when_all_refuse_it_waits_and_says_why() -> None:
    refused = given("a", Phase.REFUSED, reason="the disk is full")
    decision = decide(POLICY, state(), [refused], NOW)
    assert decision.actions == ()
    assert "a refused it: the disk is full" in decision.sentence


def test_of_a_configuration_it_speaks_as_of_one() -> None:
    decision = decide(POLICY, state(model=":site-north"), [device(busy=True)], NOW)
    assert "a device that the configuration fits" in decision.sentence
    assert "another rollout of this configuration has cam-1" in decision.sentence


@pytest.mark.parametrize(
    ("devices", "why"),
    [
        ([], "the selector chooses no device"),
        ([device(variant="", unfit="No variant fits.")], "cam-1: No variant fits"),
        ([device(busy=True)], "another rollout of this model has cam-1"),
    ],
)
def test_with_no_device_to_give_it_to_it_waits(devices: list[Any], why: str) -> None:
    decision = decide(POLICY, state(), devices, NOW)
    assert decision.actions == ()
    assert why in decision.sentence


def test_never_more_than_the_limit_are_in_flight() -> None:
    policy = Policy(waves=(Wave(percent=100),), limits=Limits(in_flight=2))
    devices = [committed("a"), given("b", Phase.TRIAL), device("c"), device("d")]
    assert decide(policy, state(), devices, NOW).actions == (
        Assign(device="c", variant="sha256:v"),
    )


@pytest.mark.parametrize("last_seen", [None, NOW - 10, NOW + 10])
def test_time_in_which_the_fleet_was_down_is_nobodys_fault(last_seen: float | None) -> None:
    up_since = NOW + 2 * POLICY.limits.device_timeout_s
    seen = last_seen and last_seen + up_since - NOW
    decision = decide(POLICY, state(), [given("a", last_seen=seen)], up_since, up_since)
    assert decision.actions == ()
    assert "a was given it and has not answered yet" in decision.sentence


@pytest.mark.parametrize(
    ("fields", "halts"),
    [
        ({"last_seen": NOW - 1}, False),  # not heard from since: what it said may be on its way
        ({"last_seen": NOW + 1}, True),
        ({"last_seen": NOW - 1, "assigned_at": NOW}, True),
    ],
)
def test_a_device_that_says_nothing_while_the_fleet_listens_is_late(
    fields: dict[str, Any], halts: bool
) -> None:
    late = NOW + POLICY.limits.device_timeout_s + 1
    decision = decide(POLICY, state(), [given("a", **fields)], late, up_since=NOW)
    assert any(isinstance(action, Halt) for action in decision.actions) is halts


def test_a_small_wave_meets_as_many_hardware_classes_as_it_can() -> None:
    devices = [device(f"x{n}") for n in range(5)] + [device("z", hardware_class="arm")]
    wave = wave_devices(Policy(waves=(Wave(count=2),)), state(), devices)
    assert {d.hardware_class for d in wave} == {"x86_64-2c", "arm"}


def test_a_wave_that_shrinks_still_counts_all_it_has_given_the_release_to() -> None:
    devices = [given("a", Phase.TRIAL), given("b", Phase.TRIAL), device("c", busy=True)]
    wave = wave_devices(Policy(waves=(Wave(percent=50),)), state(), devices)
    assert [d.device for d in wave] == ["a", "b"]


def test_minimum_evidence_is_asked_of_each_class() -> None:
    policy = Policy(waves=(Wave(count=3),), gates=Gates(min_evidence=2))
    devices = [committed("a"), committed("b"), committed("c", hardware_class="arm")]
    assert decide(policy, state(), devices, NOW).actions == (Hold(since=NOW),)
    waits = [committed("a"), given("b", Phase.TRIAL), committed("c", hardware_class="arm")]
    decision = decide(policy, state(), waits, NOW)
    undecided = [g.name for g in decision.gates if g.result is Verdict.UNDECIDED]
    assert undecided == ["devices.failed", "x86_64-2c: committed"]


def test_a_paused_rollout_does_nothing_and_keeps_its_reason() -> None:
    paused = state(status=RolloutStatus.PAUSED, reason="Paused by operator: lunch.")
    decision = decide(POLICY, paused, [device()], NOW)
    assert decision.actions == ()
    assert decision.sentence == "Paused by operator: lunch."


@pytest.mark.parametrize("status", [RolloutStatus.HALTED, RolloutStatus.ABORTED])
def test_a_stopped_rollout_follows_its_failure_policy(status: RolloutStatus) -> None:
    stopped = state(status=status, reason="why")
    devices = [rolled_back("a"), committed("b"), given("c", restored=True), device("d")]
    back = decide(POLICY, stopped, devices, NOW)
    assert back.actions == (Restore(device="a"), Restore(device="b"))
    stay = decide(Policy(on_failure="pause"), stopped, devices, NOW)
    assert stay.actions == ()
    assert stay.sentence == back.sentence == "why"


def test_a_completed_rollout_stays_so() -> None:
    done = state(status=RolloutStatus.COMPLETED)
    assert decide(POLICY, done, [rolled_back("a"), device("b")], NOW).actions == ()


def test_the_order_of_observations_decides_nothing() -> None:
    devices = [given("b", Phase.TRIAL), device("a"), device("d"), committed("c")]
    rollout: RolloutState = state(wave=1)
    assert decide(POLICY, rollout, devices, NOW) == decide(POLICY, rollout, devices[::-1], NOW)


def test_of_several_that_refuse_the_first_by_name_is_quoted() -> None:
    devices = [given(name, Phase.REFUSED, reason="no room") for name in ("b", "a")]
    assert "a refused it" in decide(POLICY, state(), devices, NOW).sentence


def test_a_device_that_was_taken_back_and_that_another_rollout_has_is_left_to_that() -> None:
    back = rolled_back("a", restored=True, again=True)
    assert decide(POLICY, state(), [back], NOW).actions == (Assign(device="a", variant="sha256:v"),)
    taken = rolled_back("a", restored=True, again=True, busy=True)
    decision = decide(POLICY, state(), [taken], NOW)
    assert decision.actions == ()
    assert "another rollout of this model has a" in decision.sentence
