"""The bootstrap keeps its error rate, and is honest about how few samples there are."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_sync.evidence import GateResult, Verdict
from converters.bootstrap import drop_draws, score_bounds
from converters.gates import metric_gate, metric_score
from converters.metrics import find_metric
from converters.paired import proportion_bounds

MEAN = find_metric("cosine")


class Plain:
    """A set metric that knows no weights: the share of right answers."""

    name, paired, identity = "plain", "set", "plain"
    needs_reference, needs_inputs, chance = False, False, 0.0

    def check(self, dataset: Any, outputs: Any) -> None: ...

    def outcome(self, outputs: Any, label: Any, reference: Any) -> bool:
        return True

    def missed(self, label: Any) -> bool:
        return False

    def score(self, outcomes: Sequence[Any]) -> float:
        return float(np.mean(outcomes))


def gate(before: Sequence[Any], after: Sequence[Any], metric: Any = MEAN) -> GateResult:
    return metric_gate(metric, before, after, max_drop=0.01, confidence=0.95)


@given(st.integers(1, 2000), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=25, deadline=None)
def test_without_any_difference_the_bound_is_that_of_what_was_not_seen(
    n: int, confidence: float
) -> None:
    draws = drop_draws(MEAN, [0.7] * n, [0.7] * n, confidence=confidence)
    unseen = 1 - (1 - confidence) ** (1 / n)
    assert draws.upper(1.0, confidence) == pytest.approx(unseen, rel=2e-3)
    assert draws.lower(-1.0, confidence) == pytest.approx(-unseen, rel=2e-3)


@pytest.mark.parametrize("name", ["cosine", "f1", "auc", "plain"])
def test_a_hundred_samples_without_any_difference_do_not_pass_for_any_metric(name: str) -> None:
    metric: Any = Plain() if name == "plain" else find_metric(name)
    one = {"cosine": 0.9, "f1": (1, 1), "plain": True}
    few = [one[name]] * 100 if name in one else [([0.1], 0), ([0.9], 1)] * 50
    result = gate(few, few, metric)
    assert result.result is Verdict.UNDECIDED
    assert 299 <= result.n_needed <= 301
    many = few * 4
    assert gate(many, many, metric).result is Verdict.PASS


@pytest.mark.parametrize(("n", "right"), [(100, 90), (40, 40), (300, 3)])
def test_for_zeros_and_ones_the_interval_is_the_exact_binomial_one(n: int, right: int) -> None:
    bounds = score_bounds(MEAN, [1.0] * right + [0.0] * (n - right), 0.95)
    exact = proportion_bounds(right, n, 0.95)
    assert bounds.low == pytest.approx(exact.low, abs=0.004)
    assert bounds.high == pytest.approx(exact.high, abs=0.004)


def all_or_nothing(rng: np.random.Generator, n: int, drop: float) -> np.ndarray:
    return (rng.random(n) < drop).astype(float)


def halves(rng: np.random.Generator, n: int, drop: float) -> np.ndarray:
    return 0.5 * (rng.random(n) < 2 * drop)


def both_ways(rng: np.random.Generator, n: int, drop: float) -> np.ndarray:
    return rng.choice([1.0, -1.0, 0.0], n, p=[0.03 + drop, 0.03, 0.94 - drop])


def everywhere_a_little(rng: np.random.Generator, n: int, drop: float) -> np.ndarray:
    return np.clip(rng.normal(drop, 0.05, n), -1, 1)


@pytest.mark.parametrize("losses", [all_or_nothing, halves, both_ways, everywhere_a_little])
@pytest.mark.parametrize("n", [30, 400])
def test_the_chance_of_a_wrong_verdict_is_at_most_five_percent(
    losses: Callable[[np.random.Generator, int, float], np.ndarray], n: int
) -> None:
    trials, limit = 250, 0.05
    passed = failed = 0
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        lost = losses(rng, n, limit)
        base = np.where(lost > 0, 1.0, 0.0) if (abs(lost) == 1).any() else np.full(n, 0.5)
        base = np.clip(base, np.maximum(lost, 0), 1 + np.minimum(lost, 0))
        result = metric_gate(
            MEAN, base.tolist(), (base - lost).tolist(), max_drop=limit, confidence=0.95
        ).result
        passed += result is Verdict.PASS
        failed += result is Verdict.FAIL
    three_sigma = 3 * math.sqrt(0.05 * 0.95 / trials)
    assert passed / trials <= 0.05 + three_sigma
    assert failed / trials <= 0.05 + three_sigma


def test_the_chance_of_a_wrong_pass_holds_for_a_set_metric() -> None:
    f1, trials, n = find_metric("f1"), 120, 250

    def answers(rng: np.random.Generator, size: int) -> tuple[list, list]:
        labels = rng.integers(0, 3, size)
        right = rng.random(size) < 0.9
        before = np.where(right, labels, (labels + 1) % 3)
        after = np.where(rng.random(size) < 0.08, (labels + 2) % 3, before)
        return list(zip(before, labels, strict=True)), list(zip(after, labels, strict=True))

    large = answers(np.random.default_rng(0), 100_000)
    true_drop = f1.score(large[0]) - f1.score(large[1])
    passed = 0
    for seed in range(trials):
        before, after = answers(np.random.default_rng(seed + 1), n)
        result = metric_gate(f1, before, after, max_drop=true_drop, confidence=0.95).result
        passed += result is Verdict.PASS
    assert passed / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_a_large_drop_fails_and_a_gain_passes() -> None:
    rng = np.random.default_rng(1)
    before = rng.uniform(0.6, 1.0, 800)
    worse = gate(before.tolist(), (before - 0.1).tolist())
    assert worse.result is Verdict.FAIL
    assert "a drop of 10.00 points, at least" in worse.reason
    better = gate((before - 0.1).tolist(), before.tolist())
    assert better.result is Verdict.PASS
    assert better.bound == pytest.approx(before.mean() - 0.1 - 0.01)
    assert better.low >= better.bound


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_number_of_samples_that_is_asked_for_decides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.uniform(0.5, 1.0, 120)
    after = np.clip(before - rng.normal(rng.uniform(-0.01, 0.03), 0.03, 120), 0, 1)
    first = gate(before.tolist(), after.tolist())
    if first.result is not Verdict.UNDECIDED:
        assert first.n_needed is None
    elif abs(float((before - after).mean()) - 0.01) > 0.002:
        assert first.n_needed is not None
        times = math.ceil(1.15 * first.n_needed / 120)
        again = gate(before.tolist() * times, after.tolist() * times)
        assert again.result is not Verdict.UNDECIDED


def test_the_same_outcomes_give_the_same_numbers() -> None:
    rng = np.random.default_rng(5)
    before, after = rng.random(50).tolist(), rng.random(50).tolist()
    assert gate(before, after) == gate(before, after)


def test_binary_outcomes_are_judged_by_the_exact_test() -> None:
    top1 = find_metric("top1")
    right, wrong = [True] * 297 + [False] * 3, [True] * 295 + [False] * 5
    result = gate(right, wrong, top1)
    assert "2 of 300 samples lost and 0 gained" in result.reason
    score = metric_score(top1, right, confidence=0.95)
    exact = proportion_bounds(297, 300, 0.95)
    assert (score.metric, score.value, score.low, score.high, score.n) == (
        *("top1", 0.99, exact.low, exact.high, 300),
    )


def test_a_score_lies_in_its_interval() -> None:
    outcomes = [(int(i % 7 == 0), i % 2) for i in range(90)]
    score = metric_score(find_metric("f1"), outcomes, confidence=0.9)
    assert 0 <= score.low < score.value < score.high <= 1
    perfect = metric_score(MEAN, [1.0] * 20, confidence=0.95)
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(0.025 ** (1 / 20), abs=0.002)


def test_samples_that_are_not_paired_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 outcomes"):
        gate([1.0] * 3, [1.0] * 2)
    with pytest.raises(ValueError, match="at least one"):
        metric_score(MEAN, [], confidence=0.95)


def test_much_confidence_is_answered_with_more_draws() -> None:
    draws = drop_draws(MEAN, [0.5] * 9, [0.5] * 9, confidence=0.999)
    assert draws.upper(1.0, 0.999) == pytest.approx(1 - 0.001 ** (1 / 9), rel=5e-3)
