"""The paired tests keep their promise: an error rate of at most 1 - confidence, exactly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from converters.paired import (
    Discordance,
    drop_bounds,
    drop_is_above,
    drop_is_below,
    proportion_bounds,
)


def discordances(most: int = 400) -> st.SearchStrategy[Discordance]:
    return st.integers(1, most).flatmap(
        lambda n: st.integers(0, min(n, 60)).flatmap(
            lambda lost: st.integers(0, min(n - lost, 60)).map(
                lambda gained: Discordance(n=n, lost=lost, gained=gained)
            )
        )
    )


def probability(seen: Discordance, p_lost: float, p_gained: float) -> float:
    same = seen.n - seen.lost - seen.gained
    ways = math.comb(seen.n, seen.lost) * math.comb(seen.n - seen.lost, seen.gained)
    return ways * p_lost**seen.lost * p_gained**seen.gained * (1 - p_lost - p_gained) ** same


@pytest.mark.parametrize("n", [12, 25])
@pytest.mark.parametrize("limit", [0.02, 0.1])
def test_the_chance_of_a_wrong_pass_is_at_most_five_percent_for_every_model(
    n: int, limit: float
) -> None:
    every = [Discordance(n=n, lost=b, gained=c) for b in range(n + 1) for c in range(n + 1 - b)]
    passes = [seen for seen in every if drop_is_below(seen, limit, 0.95)]
    for p_gained in np.linspace(0, (1 - limit) / 2, 25):
        wrong = sum(probability(seen, p_gained + limit, p_gained) for seen in passes)
        assert wrong <= 0.05 + 1e-9


@pytest.mark.parametrize("limit", [0.02, 0.1])
def test_the_chance_of_a_wrong_fail_is_at_most_five_percent_for_every_model(
    limit: float,
) -> None:
    n = 20
    every = [Discordance(n=n, lost=b, gained=c) for b in range(n + 1) for c in range(n + 1 - b)]
    fails = [seen for seen in every if drop_is_above(seen, limit, 0.95)]
    for p_gained in np.linspace(0, (1 - limit) / 2, 25):
        assert sum(probability(seen, p_gained + limit, p_gained) for seen in fails) <= 0.05 + 1e-9


def most_lost(n: int, gained: np.ndarray, limit: float, confidence: float) -> np.ndarray:
    """How many samples may be lost beside each number gained, so that it passes; -1: none."""
    found, lost = [], -1
    for count in gained.tolist():
        while lost < n - count and drop_is_below(
            Discordance(n=n, lost=lost + 1, gained=count), limit, confidence
        ):
            lost += 1
        found.append(lost)
    return np.array(found)


@pytest.mark.parametrize(
    ("n", "confidence"), [(100, 0.95), (200, 0.95), (400, 0.95), (1000, 0.95), (400, 0.9875)]
)
def test_the_exact_chance_of_a_wrong_pass_at_one_point_is_kept_however_few_the_samples(
    n: int, confidence: float
) -> None:
    # Added up by other arithmetic: gained samples, and lost ones of the rest, are binomial.
    shares = np.linspace(0, 0.12, 241)
    gained = np.arange(min(n, stats.binom.isf(1e-6, n, shares[-1])) + 1)
    most = most_lost(n, gained, 0.01, confidence)
    for beyond in (0.0, 0.0005, 0.005):  # the drop is a point, or more
        wrong = [
            float(
                stats.binom.pmf(gained, n, share)
                @ stats.binom.cdf(most, n - gained, (share + 0.01 + beyond) / (1 - share))
            )
            for share in shares
        ]
        assert max(wrong) <= 1 - confidence - 1e-6
    assert (np.diff(most) >= 0).all(), "what is lost may be made up for, never the reverse"


def test_a_hundred_samples_without_difference_are_too_few_and_two_gained_show_a_gain() -> None:
    def shown(lost: int, gained: int) -> bool:
        return drop_is_below(Discordance(n=100, lost=lost, gained=gained), 0.01, 0.95)

    assert not shown(0, 0)
    assert not shown(0, 1)
    assert shown(0, 2)
    assert not shown(1, 4)


@pytest.mark.parametrize("p_gained", [0.0, 0.005, 0.02, 0.1])
def test_simulated_coverage_at_a_thousand_samples_keeps_the_error_rate(p_gained: float) -> None:
    rng = np.random.default_rng(20260501)
    limit, trials = 0.01, 2000
    drawn = rng.multinomial(
        1000, [p_gained + limit, p_gained, 1 - 2 * p_gained - limit], size=trials
    )
    counts: dict[tuple[int, int], int] = {}
    for lost, gained, _ in drawn.tolist():
        counts[lost, gained] = counts.get((lost, gained), 0) + 1
    wrong = sum(
        times
        for (lost, gained), times in counts.items()
        if drop_is_below(Discordance(n=1000, lost=lost, gained=gained), limit, 0.95)
    )
    three_sigma = 3 * math.sqrt(0.05 * 0.95 / trials)
    assert wrong / trials <= 0.05 + three_sigma
    if p_gained:
        assert wrong / trials >= 0.02, "the test is needlessly timid"


def test_without_discordance_three_hundred_samples_show_a_drop_below_one_point() -> None:
    assert not drop_is_below(Discordance(n=290, lost=0, gained=0), 0.01, 0.95)
    assert drop_is_below(Discordance(n=305, lost=0, gained=0), 0.01, 0.95)


def test_at_four_percent_discordance_about_eleven_hundred_samples_are_needed() -> None:
    assert not drop_is_below(Discordance(n=1000, lost=20, gained=20), 0.01, 0.95)
    assert drop_is_below(Discordance(n=1200, lost=24, gained=24), 0.01, 0.95)


@given(discordances(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_the_bounds_hold_the_observed_drop_and_mirror_with_it(
    seen: Discordance, confidence: float
) -> None:
    bounds = drop_bounds(seen, confidence)
    assert bounds.low <= seen.drop <= bounds.high
    mirrored = drop_bounds(seen.mirrored(), confidence)
    assert mirrored.low == pytest.approx(-bounds.high, abs=2e-5)


@given(discordances())
@settings(max_examples=40, deadline=None)
def test_more_confidence_never_gives_a_narrower_interval(seen: Discordance) -> None:
    wide, narrow = drop_bounds(seen, 0.99), drop_bounds(seen, 0.9)
    assert wide.low <= narrow.low + 2e-5
    assert narrow.high <= wide.high + 2e-5


@given(discordances(), st.floats(0.001, 0.3))
@settings(max_examples=100, deadline=None)
def test_no_data_show_that_a_drop_is_both_below_and_above(seen: Discordance, limit: float) -> None:
    assert not (drop_is_below(seen, limit, 0.9) and drop_is_above(seen, limit, 0.9))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_proportions_interval_is_exact(counts: tuple[int, int]) -> None:
    right, n = counts
    bounds = proportion_bounds(right, n, 0.9)
    assert 0 <= bounds.low <= right / n <= bounds.high <= 1
    if right:
        at_least = sum(probability_of(k, n, bounds.low) for k in range(right, n + 1))
        assert at_least == pytest.approx(0.05, abs=1e-6)


def probability_of(k: int, n: int, p: float) -> float:
    if p in (0.0, 1.0):
        return float(k == n * p)
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="not a paired comparison"):
        Discordance(n=3, lost=2, gained=2)
