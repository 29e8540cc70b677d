import msgspec
import pytest

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts import DeviceObservation, Figure, Override, Policy
from fleet.rollouts.failures import Threshold
from fleet.rollouts.gates import wave_gates
from fleet.rollouts.policy import Gates, Limits, Metric, Wave
from fleet.rollouts.survey import survey
from tests.fleet.rollouts import observed
from tests.fleet.rollouts.observed import (
    NOW,
    committed,
    device,
    gate,
    latency,
    rolled_back,
    state,
)

POLICY = Policy()


def by_name(*devices: object, policy: Policy = POLICY) -> dict[str, GateResult]:
    everyone = msgspec.structs.replace(policy, waves=(Wave(percent=100),))
    seen = survey(everyone, state(), devices, NOW, 0.0)  # type: ignore[arg-type]
    return {g.name: g for g in wave_gates(seen, everyone, state())}


def test_golden_figures_are_never_pooled_over_devices() -> None:
    gates = by_name(*(committed(f"d{n}", gate(value=0.0, bound=0.0, n=64)) for n in range(5)))
    assert gates["x86_64-2c: golden.outputs"].n == 64


def test_a_class_is_as_good_as_its_worst_device() -> None:
    gates = by_name(
        committed("a", gate(value=0.1, bound=1.0)), committed("b", gate(value=0.9, bound=1.0))
    )
    shown = gates["x86_64-2c: golden.outputs"]
    assert shown.value == 0.9
    assert shown.reason.startswith("b, the closest of 2:")


def test_classes_are_judged_apart() -> None:
    gates = by_name(committed("a"), committed("b", gate(Verdict.UNDECIDED), hardware_class="arm"))
    assert gates["x86_64-2c: golden.outputs"].result is Verdict.PASS
    assert gates["arm: golden.outputs"].result is Verdict.UNDECIDED


def test_latency_is_compared_with_the_release_before_on_the_same_device() -> None:
    policy = Policy(gates=Gates(max_latency_p95_ratio=2.0, latency_slack_ms=1.0))
    gates = by_name(
        committed("a", latency(30.0, 20.0)), committed("b", latency(3.0, 2.0)), policy=policy
    )
    ratio = gates["x86_64-2c: latency_p95_ratio"]
    assert (ratio.result, ratio.value, ratio.baseline, ratio.bound, ratio.n) == (
        Verdict.PASS, 30.0, 20.0, 41.0, 2,
    )  # fmt: skip
    assert "a, the slowest of 2, is 30.00 ms" in ratio.reason


def test_without_a_release_before_there_is_no_latency_to_compare() -> None:
    assert "x86_64-2c: latency_p95_ratio" not in by_name(committed("a", latency(3.0, None)))


def test_failing_figures_are_shown_when_they_stop_the_rollout() -> None:
    bad = gate(Verdict.FAIL, name="live.confident_share", value=0.03, bound=0.77)
    gates = by_name(rolled_back("a", gates=(bad,)), committed("b"))
    assert gates["devices.failed"].result is Verdict.FAIL
    assert gates["x86_64-2c: live.confident_share"].result is Verdict.FAIL


def test_a_wave_under_way_is_undecided() -> None:
    gates = by_name(committed("a"), device("b"))
    assert gates["devices.failed"].result is Verdict.UNDECIDED
    assert gates["devices.failed"].n_needed == 2


def test_many_failures_are_counted_and_few_are_named() -> None:
    reason = by_name(*(rolled_back(f"d{n}") for n in range(9)))["devices.failed"].reason
    assert "9 of 9 devices failed" in reason
    assert reason.count("rolled back") == 3
    assert "and 6 more" in reason


DRIFT = Metric(name="drift", max=0.5, min_samples=10)


def drifting(name: str, value: float, n: int = 20) -> DeviceObservation:
    return committed(name, figures={"drift": Figure(value=value, n=n)})


def metric_gate(*devices: DeviceObservation, metric: Metric = DRIFT, least: int = 1) -> GateResult:
    policy = Policy(gates=Gates(min_evidence=least, metrics=(metric,)))
    return by_name(*devices, policy=policy)["x86_64-2c: drift"]


def test_a_metric_that_nobody_reports_is_undecided_and_says_for_how_many() -> None:
    gate_ = metric_gate(committed("a"), committed("b"), least=2)
    assert (gate_.result, gate_.n, gate_.n_needed) == (Verdict.UNDECIDED, 0, 2)
    assert "2 devices with 10 samples would decide it" in gate_.reason


def test_a_metric_is_judged_by_the_worst_device_with_enough_samples() -> None:
    early = drifting("c", 0.9, n=3)  # too few to say anything
    gate_ = metric_gate(drifting("a", 0.1), drifting("b", 0.4), early, least=2)
    failing = metric_gate(drifting("a", 0.1), drifting("b", 0.6))
    assert (gate_.result, gate_.n, gate_.bound) == (Verdict.PASS, 2, 0.5)
    assert failing.result is Verdict.FAIL
    few = metric_gate(drifting("a", 0.1), drifting("b", 0.2, n=3), least=2)
    assert (few.result, few.n, few.n_needed) == (Verdict.UNDECIDED, 1, 2)
    assert metric_gate(drifting("a", 0.1), drifting("b", 0.2), least=2).result is Verdict.PASS


def test_a_share_of_devices_may_be_beyond_a_metrics_bound_and_its_interval_decides() -> None:
    some = Metric(name="drift", max=0.5, max_failing_percent=10)
    devices = [drifting(f"d{n}", 0.1) for n in range(40)]
    waiting = [device(f"e{n}") for n in range(400)]
    one = metric_gate(*devices[:20], *waiting, metric=some)
    assert (one.result, one.n) == (Verdict.UNDECIDED, 20)
    assert one.low is not None
    assert one.high is not None
    assert one.low <= 0.1 < one.high
    assert one.n_needed is not None
    assert one.n_needed > 20
    bad = [drifting(f"b{n}", 0.9) for n in range(20)]
    assert metric_gate(*devices, *bad, metric=some).result is Verdict.FAIL
    assert metric_gate(*devices, bad[0], metric=some).result is Verdict.PASS


def test_figures_of_the_trial_have_bounds_of_their_own() -> None:
    policy = Policy(gates=Gates(max_error_rate=0.05, max_memory_mb=300, max_latency_p95_ms=10))
    figures = {
        "error_rate": Figure(value=0.02, n=50, low=0.004, high=0.1),
        "memory_mb": Figure(value=412),
        "latency_p95_ms": Figure(value=9.0, n=50),
    }
    gates = by_name(committed("a", figures=figures), policy=policy)
    assert gates["x86_64-2c: error_rate"].result is Verdict.PASS
    assert gates["x86_64-2c: memory_mb"].result is Verdict.FAIL
    assert "412 MB on 1 sample; at most 300 MB is wanted" in gates["devices.failed"].reason
    assert gates["x86_64-2c: latency_p95_ms"].result is Verdict.PASS


def test_a_threshold_has_its_say_once_enough_have_finished() -> None:
    policy = Policy(thresholds=(Threshold(failures="crashed", percent=20, minimum=4),))
    crashed = [rolled_back(f"c{n}", "the agent crashed 3 times") for n in range(2)]
    few = by_name(*crashed, committed("a"), policy=policy)["devices.crashed"]
    enough = by_name(*crashed, committed("a"), committed("b"), policy=policy)
    assert few.result is Verdict.PASS
    assert few.value == pytest.approx(66.7, abs=0.1)
    assert (enough["devices.crashed"].result, enough["devices.crashed"].n) == (Verdict.FAIL, 4)
    assert enough["devices.failed"].result is Verdict.PASS  # no bound besides the threshold


def test_refusals_count_where_a_threshold_names_them() -> None:
    policy = Policy(thresholds=(Threshold(failures="refused", percent=40),))
    refused = [observed.given(f"r{n}", Phase.REFUSED) for n in range(2)]
    gate_ = by_name(*refused, committed("a"), policy=policy)["devices.refused"]
    assert gate_.result is Verdict.FAIL


def test_the_share_of_a_class_on_which_it_crashed_is_bounded() -> None:
    limits = Limits(max_failures=9)
    policy = Policy(gates=Gates(max_crash_percent=20), limits=limits)
    crashed = [rolled_back(f"c{n}", "the agent crashed 3 times") for n in range(3)]
    gates = by_name(*crashed, committed("a"), policy=policy)
    assert gates["x86_64-2c: crash_rate"].result is Verdict.FAIL
    good = [committed(f"d{n}") for n in range(30)]
    assert by_name(*good, crashed[0], policy=policy)["x86_64-2c: crash_rate"].result is (
        Verdict.PASS
    )


def test_an_override_counts_in_its_wave_and_for_no_worse_result() -> None:
    def overridden(*devices: DeviceObservation, wave: int = 0, over: Verdict) -> GateResult:
        one = Override(
            gate="x86_64-2c: live.x", wave=wave, result=over, by="anna", at=NOW, reason="known"
        )
        everyone = Policy(waves=(Wave(percent=100),))
        seen = survey(everyone, state(), devices, NOW, 0.0)
        gates = wave_gates(seen, everyone, state(overrides=(one,)))
        return next(g for g in gates if g.name == "x86_64-2c: live.x")

    doubtful = committed("a", gate(Verdict.UNDECIDED, name="live.x"))
    passed = overridden(doubtful, over=Verdict.UNDECIDED)
    assert passed.result is Verdict.PASS
    assert "(undecided, overridden by anna: known)" in passed.reason
    assert overridden(doubtful, wave=1, over=Verdict.UNDECIDED).result is Verdict.UNDECIDED
    failing = committed("a", gate(Verdict.FAIL, name="live.x"))
    assert overridden(failing, over=Verdict.UNDECIDED).result is Verdict.FAIL
    assert overridden(failing, over=Verdict.FAIL).result is Verdict.PASS


def test_the_policy_says_what_an_undecided_gate_of_a_device_is_worth() -> None:
    doubtful = committed("a", gate(Verdict.UNDECIDED))
    waits = by_name(doubtful)["x86_64-2c: golden.outputs"]
    accepts = by_name(doubtful, policy=Policy(gates=Gates(undecided="accept")))
    assert waits.result is Verdict.UNDECIDED
    assert accepts["x86_64-2c: golden.outputs"].result is Verdict.PASS
    assert "which the policy accepts" in accepts["x86_64-2c: golden.outputs"].reason
