from cloud_sync.evidence import GateResult, Verdict
from fleet.rollouts import Policy
from fleet.rollouts.gates import wave_gates
from fleet.rollouts.policy import Gates
from tests.fleet.rollouts.observed import (
    NOW,
    RELEASE,
    committed,
    device,
    gate,
    latency,
    rolled_back,
)

POLICY = Policy()


def by_name(*devices: object, policy: Policy = POLICY) -> dict[str, GateResult]:
    return {g.name: g for g in wave_gates(devices, RELEASE, policy, NOW)}  # type: ignore[arg-type]


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
