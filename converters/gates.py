"""The converter's gates: may this candidate take the float model's place?

Pure functions from what was counted and timed to a `GateResult`. The accuracy gate compares
both models on the same samples: outcomes of right or wrong with the exact tests of
`converters.paired`, all others with the paired bootstrap of `converters.bootstrap`. The speed
gate looks at the ratio of interleaved timings; `converters.limits` at sizes and times.
Each answers pass, fail or undecided, with the numbers and the sample size that would decide.
"""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from scipy import special

from cloud_sync.evidence import Accuracy, GateResult, Verdict
from converters.bootstrap import drop_draws, score_bounds
from converters.metrics.interface import Metric
from converters.paired import (
    Discordance,
    Interval,
    drop_bounds,
    drop_is_above,
    drop_is_below,
    proportion_bounds,
)

_MOST_SAMPLES = 1_000_000


def metric_score(metric: Metric, outcomes: Sequence[Any], *, confidence: float) -> Accuracy:
    """A model's score with its two-sided interval: exact for binary outcomes, else bootstrapped.

    Args:
        metric: what made the outcomes.
        outcomes: one a sample, at least one.
        confidence: of the interval.
    """
    if not len(outcomes):
        raise ValueError("a score needs at least one outcome")
    if metric.paired == "binary":
        correct = np.asarray(outcomes, bool)
        return accuracy_of(correct, metric=metric.name, confidence=confidence)
    value = metric.score(outcomes)
    bounds = score_bounds(metric, outcomes, confidence)
    return Accuracy(
        metric=metric.name,
        value=value,
        low=min(bounds.low, value),
        high=max(bounds.high, value),
        confidence=confidence,
        n=len(outcomes),
    )


def metric_gate(
    metric: Metric,
    baseline: Sequence[Any],
    candidate: Sequence[Any],
    *,
    max_drop: float,
    confidence: float,
) -> GateResult:
    """Judge the drop of a metric's score on the same samples.

    It passes where the drop is shown, at this one-sided confidence, to be below `max_drop`,
    and fails where it is shown to be above. Samples that never differ show nothing about
    those that were not seen: without any difference n samples leave a drop of up to
    1 - (1 - confidence) ** (1 / n), and where that is not below `max_drop` the gate stays
    undecided, whatever the metric.

    Args:
        metric: what made the outcomes.
        baseline: the float model's outcomes, one a sample.
        candidate: the candidate's on the same samples.
        max_drop: the drop that is allowed, as a share of the score's range (0.01 is one point).
        confidence: of each of the two one-sided statements.

    Returns:
        The gate `accuracy`, as of `accuracy_gate`; its unit is the metric's name.
    """
    if not len(baseline) or len(baseline) != len(candidate):
        raise ValueError(f"{len(baseline)} and {len(candidate)} outcomes cannot be paired")
    if metric.paired == "binary":
        return accuracy_gate(
            np.asarray(baseline, bool),
            np.asarray(candidate, bool),
            metric=metric.name,
            max_drop=max_drop,
            confidence=confidence,
        )
    n, before, after = len(baseline), metric.score(baseline), metric.score(candidate)
    draws = drop_draws(metric, baseline, candidate, confidence=confidence)
    drop = Interval(
        low=min(draws.lower(-1.0, confidence), before - after),
        high=max(draws.upper(1.0, confidence), before - after),
    )
    result, n_needed = Verdict.UNDECIDED, None
    if drop.high < max_drop:
        result = Verdict.PASS
    elif drop.low > max_drop:
        result = Verdict.FAIL
    else:
        spread = draws.deviation * math.sqrt(n)
        n_needed = _bootstrap_samples(n, before - after, spread, max_drop, confidence)
    seen = (
        f"{metric.name} {after:.4f} after {before:.4f} on the same {n} samples, "
        f"a drop of {100 * (before - after):.2f} points"
    )
    return GateResult(
        name="accuracy",
        result=result,
        value=after,
        baseline=before,
        bound=before - max_drop,
        low=before - drop.high,
        high=before - drop.low,
        confidence=confidence,
        n=n,
        n_needed=n_needed,
        unit=metric.name,
        reason=f"{seen}, {_said(result, drop, _limit(max_drop, confidence), n, n_needed)}",
    )


def accuracy_of(correct: np.ndarray, *, metric: str, confidence: float) -> Accuracy:
    """A share of right answers with its exact two-sided interval."""
    n, right = len(correct), int(correct.sum())
    bounds = proportion_bounds(right, n, confidence)
    return Accuracy(
        metric=metric,
        value=right / n,
        low=bounds.low,
        high=bounds.high,
        confidence=confidence,
        n=n,
    )


def accuracy_gate(
    baseline: np.ndarray,
    candidate: np.ndarray,
    *,
    metric: str,
    max_drop: float,
    confidence: float,
) -> GateResult:
    """Judge the drop of accuracy on the same samples.

    Args:
        baseline: for each sample, whether the float model was right, bool [n].
        candidate: the same for the candidate, bool [n].
        metric: what right means (`top1`).
        max_drop: the drop that is allowed, as a share (0.01 is one point).
        confidence: of each of the two one-sided statements, that the drop is less (pass) or
            more (fail) than `max_drop`.

    Returns:
        The gate `accuracy`. `value` is the candidate's accuracy, `baseline` the float
        model's, `bound` what the candidate had to keep; [`low`, `high`] is what the
        baseline less the drop's confidence bounds leaves.
    """
    n = len(baseline)
    seen = Discordance(
        n=n,
        lost=int((baseline & ~candidate).sum()),
        gained=int((~baseline & candidate).sum()),
    )
    result = drop_verdict(seen, max_drop, confidence)
    drop = drop_bounds(seen, confidence)
    float_accuracy = float(baseline.mean())
    n_needed, is_near = None, False
    if result is Verdict.UNDECIDED:
        n_needed = samples_needed(seen, max_drop, confidence)
        is_near = _deciding_size(seen, n, max_drop, confidence) is None
    return GateResult(
        name="accuracy",
        result=result,
        value=float(candidate.mean()),
        baseline=float_accuracy,
        bound=float_accuracy - max_drop,
        low=float_accuracy - drop.high,
        high=float_accuracy - drop.low,
        confidence=confidence,
        n=n,
        n_needed=n_needed,
        unit=metric,
        reason=f"{_numbers(seen)}, "
        f"{_said(result, drop, _limit(max_drop, confidence), n, n_needed, is_near=is_near)}",
    )


def drop_verdict(seen: Discordance, max_drop: float, confidence: float) -> Verdict:
    """Whether the true drop is below `max_drop`, above it, or not known to be either."""
    if drop_is_below(seen, max_drop, confidence):
        return Verdict.PASS
    if drop_is_above(seen, max_drop, confidence):
        return Verdict.FAIL
    return Verdict.UNDECIDED


def samples_needed(seen: Discordance, max_drop: float, confidence: float) -> int | None:
    """How many samples would decide, if more of them behaved as those that were seen.

    Where the observed drop is so near to `max_drop` that no practicable number would: how
    many would decide if there were no drop but as many samples on which the two disagree;
    None where that many have been seen already.
    """
    if drop_verdict(seen, max_drop, confidence) is not Verdict.UNDECIDED:
        return seen.n
    needed = _deciding_size(seen, seen.n, max_drop, confidence)
    if needed is None:
        half = math.ceil((seen.lost + seen.gained) / 2)
        even = Discordance(n=max(seen.n, 2 * half), lost=half, gained=half)
        needed = _deciding_size(even, 1, max_drop, confidence)
    return needed if needed and needed > seen.n else None


def _deciding_size(seen: Discordance, least: int, max_drop: float, confidence: float) -> int | None:
    low, high = least, least
    while drop_verdict(_scaled(seen, high), max_drop, confidence) is Verdict.UNDECIDED:
        low, high = high, high * 2
        if high > _MOST_SAMPLES:
            return None
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        if drop_verdict(_scaled(seen, middle), max_drop, confidence) is Verdict.UNDECIDED:
            low = middle
        else:
            high = middle
    return high


def speed_gate(
    baseline_ms: np.ndarray, candidate_ms: np.ndarray, *, min_speedup: float, confidence: float
) -> GateResult:
    """Judge how much faster the candidate is, from interleaved timings.

    Args:
        baseline_ms: one timing of the float model a round, float [n].
        candidate_ms: the candidate's timing of the same round, float [n].
        min_speedup: the ratio that is asked for.
        confidence: of the statement that the median ratio is above (pass) or below (fail).

    Returns:
        The gate `speedup`; its interval is that of the median ratio of a round, from the
        binomial distribution of order statistics, so that no shape of noise is assumed.
    """
    median = median_bounds(baseline_ms / candidate_ms, confidence)
    low, high, value, n = median.low, median.high, median.value, median.n
    result = Verdict.UNDECIDED
    if low >= min_speedup:
        result = Verdict.PASS
    elif high < min_speedup:
        result = Verdict.FAIL
    n_needed = median.n_needed(min_speedup) if result is Verdict.UNDECIDED else None
    said = {
        Verdict.PASS: "fast enough",
        Verdict.FAIL: "too little",
        Verdict.UNDECIDED: "too near to tell",
    }[result]
    return GateResult(
        name="speedup",
        result=result,
        value=value,
        baseline=1.0,
        bound=min_speedup,
        low=low,
        high=high if math.isfinite(high) else None,
        confidence=confidence,
        n=n,
        n_needed=n_needed,
        unit="x float32",
        reason=f"{value:.2f} x the speed of float32 ({low:.2f} to {high:.2f} over {n} interleaved "
        f"rounds); {min_speedup:g} x is asked for: {said}.",
    )


class Median(msgspec.Struct, frozen=True, kw_only=True):
    """A median of `n` values between its one-sided bounds; `high` may be infinite, `low` 0."""

    value: float
    low: float
    high: float
    n: int

    def n_needed(self, bound: float) -> int | None:
        """About how many values like these would tell the median from `bound`."""
        distance, width = abs(self.value - bound), self.high - self.low
        if not distance or not math.isfinite(width):
            return None
        return math.ceil(self.n * max(1.0, width / 2 / distance) ** 2) + 1


def median_bounds(values: np.ndarray, confidence: float) -> Median:
    """A median of positive values with bounds that assume no shape of their distribution.

    They are the order statistics that the binomial distribution gives.

    Args:
        values: float [n], at least one.
        confidence: of each bound.
    """
    ordered = np.sort(values)
    n = len(ordered)
    skip = _median_skip(n, confidence)
    return Median(
        value=float(np.median(ordered)),
        low=float(ordered[skip]) if skip is not None else 0.0,
        high=float(ordered[n - 1 - skip]) if skip is not None else math.inf,
        n=n,
    )


def _median_skip(n: int, confidence: float) -> int | None:
    """How many of the smallest of `n` values may be left out below the median, one-sided.

    The largest k with P(Binomial(n, 1/2) <= k) at most 1 - confidence; None where even k = 0
    is too many.
    """
    total, skip = 0.0, None
    for k in range(n):
        total += math.exp(
            math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
        )
        if total > 1 - confidence:
            break
        skip = k
    return skip


def _scaled(seen: Discordance, n: int) -> Discordance:
    factor = n / seen.n
    return Discordance(n=n, lost=round(seen.lost * factor), gained=round(seen.gained * factor))


def _numbers(seen: Discordance) -> str:
    return (
        f"{seen.lost} of {seen.n} samples lost and {seen.gained} gained, "
        f"a drop of {100 * seen.drop:.2f} points"
    )


def _points(share: float) -> str:
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"  # noqa: PLR2004


def _limit(max_drop: float, confidence: float) -> str:
    return f"{_points(max_drop)} at {100 * confidence:g} % confidence"


def _said(
    result: Verdict,
    drop: Interval,
    limit: str,
    n: int,
    n_needed: int | None,
    *,
    is_near: bool = False,
) -> str:
    """What a verdict on a drop rests on; `is_near` where samples like these never decide."""
    if result is Verdict.PASS:
        return f"at most {100 * drop.high:.2f}: within {limit}."
    if result is Verdict.FAIL:
        return f"at least {100 * drop.low:.2f}: more than {limit}."
    asked = (
        f"about {n_needed} samples would decide if it lost no more than it gained on them"
        if n_needed and is_near
        else f"about {n_needed} samples like these would decide"
        if n_needed
        else "so near to the limit that no practicable number of samples would decide"
    )
    return (
        f"between {100 * drop.low:.2f} and {100 * drop.high:.2f}: "
        f"{n} samples cannot decide on {limit}; {asked}."
    )


def _bootstrap_samples(
    n: int, drop: float, spread: float, max_drop: float, confidence: float
) -> int | None:
    """How many samples like these would decide, by the width's two parts.

    One shrinks with the root of the number (`spread` is a sample's standard deviation), the
    other, for what was not seen, with the number. As in `samples_needed`, where the drop is
    too near to `max_drop`: how many would decide if there were none.
    """
    z, unseen = float(special.ndtri(confidence)), -math.log(1 - confidence)
    for distance in (abs(max_drop - drop), max_drop):
        if distance:
            root = math.sqrt((z * spread) ** 2 + 4 * unseen * distance)
            needed = math.ceil(((z * spread + root) / (2 * distance)) ** 2)
            if needed <= _MOST_SAMPLES:
                return needed if needed > n else n + max(1, n // 10)
    return None
