"""A paired bootstrap that is honest about how few samples there are.

The weights of a draw are Dirichlet(1, ..., 1) over the `n` samples **and one more that was
not seen**, on which the model may be as bad (or as good) as can be. That is the Bayesian
bootstrap (Rubin 1981) with the end of the outcome's range added, whose quantile is Gaffke's
bound of a bounded mean: it makes no assumption on the distribution but its range, and for
outcomes of 0 and 1 it is exactly the binomial (Clopper-Pearson) bound. So where no two
outcomes differ the bound on the drop is 1 - (1 - confidence) ** (1 / n), not zero: at 95 %
about 300 samples show a drop below one point, and fewer never do.

Plain percentile or BCa intervals are not used, since both have zero width there, and for rare
large losses cover too seldom. That Gaffke's bound covers for every distribution is
conjectured, proved for special cases, and no counter-example is known. For a set metric the
unseen sample's weight is taken to cost as much of the score as it is of the samples; that is
so for means, and an approximation for F1, AUC or mAP, whose rare classes weigh more.

Draws come from a fixed seed: the same outcomes give the same bounds.

Sources: D. Rubin, "The Bayesian bootstrap", Annals of Statistics 9 (1981); N. Gaffke, "Three
test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
variable", Mathematical Methods of Statistics 14 (2005); E. Learned-Miller and P. Thomas, "A
new confidence interval for the mean of a bounded random variable", arXiv:1905.06208.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from converters.metrics.interface import Metric, Reweighted
from converters.paired import Interval

_SEED = 20_260_501
_LEAST_DRAWS = 4000
_MOST_DRAWS = 40_000
_SLOW_DRAWS = 2000  # of a metric that must be asked once a draw
_TAIL_DRAWS = 100  # beyond the quantile that is asked for
_CHUNK = 1 << 22


class Draws(msgspec.Struct, frozen=True):
    """Replicates of one number: `seen` over the samples, `unseen` the weight of the other.

    A mean over all is seen * (1 - unseen) + worst * unseen.
    """

    seen: np.ndarray
    unseen: np.ndarray

    def upper(self, worst: float, confidence: float) -> float:
        """The one-sided upper bound, the unseen sample being `worst`."""
        return float(np.quantile(self._mixed(worst), confidence, method="higher"))

    def lower(self, worst: float, confidence: float) -> float:
        """The one-sided lower bound."""
        return float(np.quantile(self._mixed(worst), 1 - confidence, method="lower"))

    @property
    def deviation(self) -> float:
        """The standard deviation of what was seen."""
        return float(self.seen.std())

    def _mixed(self, worst: float) -> np.ndarray:
        mixed: np.ndarray = self.seen * (1 - self.unseen) + worst * self.unseen
        return mixed


def drop_draws(
    metric: Metric, baseline: Sequence[Any], candidate: Sequence[Any], *, confidence: float
) -> Draws:
    """Replicates of the drop (baseline's score less the candidate's) on the same samples."""
    if metric.paired != "set":
        lost = np.asarray(baseline, np.float64) - np.asarray(candidate, np.float64)
        return _draws(len(lost), confidence, lambda weights: weights @ lost)
    if isinstance(metric, Reweighted):
        scores = metric.scores
        return _draws(
            len(baseline),
            confidence,
            lambda weights: scores(baseline, weights) - scores(candidate, weights),
        )
    return _asked(
        len(baseline),
        lambda rows: metric.score(_taken(baseline, rows)) - metric.score(_taken(candidate, rows)),
    )


def score_draws(metric: Metric, outcomes: Sequence[Any], *, confidence: float) -> Draws:
    """Replicates of the score."""
    if metric.paired != "set":
        values = np.asarray(outcomes, np.float64)
        return _draws(len(values), confidence, lambda weights: weights @ values)
    if isinstance(metric, Reweighted):
        scores = metric.scores
        return _draws(len(outcomes), confidence, lambda weights: scores(outcomes, weights))
    return _asked(len(outcomes), lambda rows: metric.score(_taken(outcomes, rows)))


def score_bounds(metric: Metric, outcomes: Sequence[Any], confidence: float) -> Interval:
    """The two-sided interval of a score in [0, 1]."""
    draws = score_draws(metric, outcomes, confidence=confidence)
    one_sided = (1 + confidence) / 2
    return Interval(
        low=max(0.0, draws.lower(0.0, one_sided)), high=min(1.0, draws.upper(1.0, one_sided))
    )


def _draws(samples: int, confidence: float, of: Callable[[np.ndarray], np.ndarray]) -> Draws:
    """Replicates from weights that sum to 1 over the samples."""
    count = math.ceil(min(_MOST_DRAWS, max(_LEAST_DRAWS, _TAIL_DRAWS / (1 - confidence))))
    seen = np.concatenate([of(weights) for weights in _weights(samples, count)])
    # The unseen sample's weight, Beta(1, n), is independent of how the others share the rest:
    # its quantiles, evenly spaced and shuffled, are nearer to the truth than draws of it.
    even = np.random.default_rng([_SEED, 1]).permutation(np.arange(1, count + 1)) / (count + 1)
    return Draws(seen, -np.expm1(np.log1p(-even) / samples))


def _weights(samples: int, count: int) -> Iterator[np.ndarray]:
    step = max(1, _CHUNK // samples)
    if step >= count:
        yield _all_weights(samples, count)
        return
    rng = np.random.default_rng(_SEED)
    for start in range(0, count, step):
        yield _normal(rng.standard_exponential((min(step, count - start), samples)))


@lru_cache(maxsize=1)
def _all_weights(samples: int, count: int) -> np.ndarray:
    """Kept for the next candidate, which is judged on as many samples."""
    weights = _normal(np.random.default_rng(_SEED).standard_exponential((count, samples)))
    weights.flags.writeable = False
    return weights


def _normal(weights: np.ndarray) -> np.ndarray:
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _asked(samples: int, of: Callable[[np.ndarray], float]) -> Draws:
    """Replicates of a metric that knows no weights: samples drawn with replacement.

    Each of the n + 1 is as likely, so that the unseen one is drawn once on average.
    """
    rng = np.random.default_rng(_SEED)
    seen, unseen = np.zeros(_SLOW_DRAWS), np.zeros(_SLOW_DRAWS)
    whole = of(np.arange(samples))
    for draw in range(_SLOW_DRAWS):
        rows = rng.integers(-1, samples, samples)
        rows = np.sort(rows[rows >= 0])
        seen[draw] = of(rows) if rows.size else whole
        unseen[draw] = 1 - rows.size / samples
    return Draws(seen, unseen)


def _taken(outcomes: Sequence[Any], rows: np.ndarray) -> list[Any]:
    return [outcomes[row] for row in rows]
