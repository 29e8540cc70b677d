"""Gates answer pass, fail or undecided, with the numbers behind it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_sync.evidence import GateResult, Verdict
from converters.gates import (
    accuracy_gate,
    accuracy_of,
    drop_verdict,
    samples_needed,
    speed_gate,
)
from converters.paired import Discordance


def marks(n: int, wrong: range) -> np.ndarray:
    right = np.ones(n, bool)
    right[list(wrong)] = False
    return right


def judge(baseline: np.ndarray, candidate: np.ndarray, max_drop: float = 0.01) -> GateResult:
    return accuracy_gate(baseline, candidate, metric="top1", max_drop=max_drop, confidence=0.95)


def test_a_candidate_that_answers_alike_on_enough_samples_passes() -> None:
    gate = judge(marks(1000, range(20)), marks(1000, range(20)))
    assert gate.result is Verdict.PASS
    assert (gate.value, gate.baseline, gate.n, gate.n_needed) == (0.98, 0.98, 1000, None)
    assert gate.bound == pytest.approx(0.97)
    assert gate.low >= gate.bound


def test_a_candidate_that_loses_ten_points_fails() -> None:
    gate = judge(marks(500, range(5)), marks(500, range(55)))
    assert gate.result is Verdict.FAIL
    assert gate.high < gate.bound
    assert "50 of 500 samples lost" in gate.reason


def test_a_hundred_samples_without_any_difference_decide_nothing_and_say_what_would() -> None:
    gate = judge(marks(100, range(10)), marks(100, range(10)))
    assert gate.result is Verdict.UNDECIDED
    assert 295 <= gate.n_needed <= 305
    assert gate.low < gate.bound < gate.high
    assert "cannot decide" in gate.reason
    assert str(gate.n_needed) in gate.reason


def test_only_samples_on_which_the_two_disagree_count_as_lost_or_gained() -> None:
    baseline, candidate = marks(400, range(10)), marks(400, range(5, 12))
    gate = judge(baseline, candidate, max_drop=0.05)
    assert "2 of 400 samples lost and 5 gained" in gate.reason


@given(
    st.integers(20, 1500),
    st.integers(0, 10),
    st.integers(0, 10),
    st.sampled_from([0.005, 0.01, 0.05]),
)
@settings(max_examples=25, deadline=None)
def test_the_number_of_samples_that_is_asked_for_decides(
    n: int, lost: int, gained: int, max_drop: float
) -> None:
    seen = Discordance(n=n, lost=lost, gained=gained)
    before = drop_verdict(seen, max_drop, 0.95)
    needed = samples_needed(seen, max_drop, 0.95)
    if before is not Verdict.UNDECIDED:
        assert needed == n
    elif needed is not None:
        assert needed > n


@given(st.integers(1, 400), st.data())
@settings(max_examples=15, deadline=None)
def test_a_pass_keeps_its_bound_and_a_fail_breaks_it(n: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, min(n, 40)))
    gained = data.draw(st.integers(0, min(n - lost, 40)))
    baseline = marks(n, range(gained))
    candidate = marks(n, range(gained, gained + lost))
    gate = judge(baseline, candidate)
    assert gate.low <= gate.value + 1e-9
    assert gate.value <= gate.high + 1e-9
    if gate.result is Verdict.PASS:
        assert gate.low >= gate.bound - 1e-4
    if gate.result is Verdict.FAIL:
        assert gate.high <= gate.bound + 1e-4


def test_accuracy_comes_with_its_exact_interval() -> None:
    accuracy = accuracy_of(marks(100, range(10)), metric="top1", confidence=0.95)
    assert (accuracy.value, accuracy.n) == (0.9, 100)
    assert accuracy.low == pytest.approx(0.8238, abs=1e-3)
    assert accuracy.high == pytest.approx(0.951, abs=1e-3)


def test_twice_the_speed_in_every_round_passes() -> None:
    rng = np.random.default_rng(1)
    base = rng.uniform(2.0, 2.2, 200)
    gate = speed_gate(base, base / 2, min_speedup=1.1, confidence=0.95)
    assert gate.result is Verdict.PASS
    assert gate.value == pytest.approx(2.0)


def test_the_same_speed_fails_a_speed_up_of_a_tenth() -> None:
    rng = np.random.default_rng(2)
    gate = speed_gate(
        rng.normal(1, 0.02, 300), rng.normal(1, 0.02, 300), min_speedup=1.1, confidence=0.95
    )
    assert gate.result is Verdict.FAIL


def test_noise_around_the_limit_is_undecided_and_asks_for_more_rounds() -> None:
    rng = np.random.default_rng(3)
    gate = speed_gate(
        rng.normal(1.12, 0.3, 60), rng.normal(1.0, 0.2, 60), min_speedup=1.1, confidence=0.95
    )
    assert gate.result is Verdict.UNDECIDED
    assert gate.n_needed > 60


def test_too_few_rounds_for_any_interval_are_undecided() -> None:
    gate = speed_gate(np.array([2.0]), np.array([1.0]), min_speedup=1.1, confidence=0.95)
    assert gate.result is Verdict.UNDECIDED


def test_a_disturbance_that_hits_both_in_a_round_does_not_change_the_answer() -> None:
    rng = np.random.default_rng(4)
    load = rng.uniform(1, 5, 200)
    gate = speed_gate(2 * load, load, min_speedup=1.1, confidence=0.95)
    assert gate.result is Verdict.PASS
    assert gate.value == pytest.approx(2.0)


def test_a_drop_at_the_limit_is_not_said_to_be_decided_by_more_samples_like_these() -> None:
    right, lost = np.ones(400, bool), np.ones(400, bool)
    lost[:4] = False  # just the point that may be lost
    at_it = accuracy_gate(right, lost, metric="top1", max_drop=0.01, confidence=0.95)
    assert at_it.n_needed
    assert f"about {at_it.n_needed} samples would decide if it lost no more" in at_it.reason
    lost[3] = True
    below = accuracy_gate(right, lost, metric="top1", max_drop=0.01, confidence=0.95)
    assert f"about {below.n_needed} samples like these would decide" in below.reason
