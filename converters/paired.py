"""Exact statistics of a paired comparison: two models on the same samples, right or wrong.

Of `n` samples, `lost` were right for the baseline only and `gained` for the candidate only.
The drop is (P(lost) - P(gained)); samples on which both agree say nothing about it but count
in `n`. The tests here are exact and unconditional: the statistic is Tango's score, its tail
is computed from the trinomial distribution, and the nuisance parameter P(gained) is
maximised over a Berger-Boos confidence set. So the error rate is at most 1 - confidence for
any model and any sample size, also where a normal approximation is not.

Sources: T. Tango, "Equivalence test and confidence interval for the difference in proportions
for the paired-sample design", Statistics in Medicine 17 (1998); R. Berger and D. Boos,
"P values maximized over a confidence set for the nuisance parameter", JASA 89 (1994).

    >>> drop_bounds(Discordance(n=299, lost=0, gained=0), confidence=0.95).high < 0.011
    True
"""

import math

import msgspec
import numpy as np
from scipy import special

_GRID = 48
_TAIL = 1e-9
_BERGER_BOOS_SHARE = 0.005  # of the error rate, spent on the nuisance parameter's confidence set
_PRECISION = 1e-5


class Discordance(msgspec.Struct, frozen=True, kw_only=True):
    """What a paired comparison observed."""

    n: int
    lost: int
    gained: int

    def __post_init__(self) -> None:
        if self.n < 1 or self.lost < 0 or self.gained < 0 or self.lost + self.gained > self.n:
            raise ValueError(f"not a paired comparison: {self}")

    @property
    def drop(self) -> float:
        """The observed drop of the share of right answers."""
        return (self.lost - self.gained) / self.n

    def mirrored(self) -> "Discordance":
        """The same comparison with the roles exchanged."""
        return Discordance(n=self.n, lost=self.gained, gained=self.lost)


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """One-sided confidence bounds, each at the confidence that was asked for."""

    low: float
    high: float


def drop_is_below(seen: Discordance, limit: float, confidence: float) -> bool:
    """Whether the data show, at this confidence, that the true drop is less than `limit`."""
    return _p_below(seen, limit, 1 - confidence) <= 1 - confidence


def drop_is_above(seen: Discordance, limit: float, confidence: float) -> bool:
    """Whether the data show, at this confidence, that the true drop is more than `limit`."""
    return drop_is_below(seen.mirrored(), -limit, confidence)


def drop_bounds(seen: Discordance, confidence: float) -> Interval:
    """The smallest and the largest drop that the data do not exclude."""
    low = -_upper_bound(seen.mirrored(), confidence)
    return Interval(low=low, high=_upper_bound(seen, confidence))


def proportion_bounds(right: int, n: int, confidence: float) -> Interval:
    """The exact (Clopper-Pearson) two-sided interval of a share."""
    tail = (1 - confidence) / 2
    low = 0.0 if right == 0 else float(special.betaincinv(right, n - right + 1, tail))
    high = 1.0 if right == n else float(special.betaincinv(right + 1, n - right, 1 - tail))
    return Interval(low=low, high=high)


def _upper_bound(seen: Discordance, confidence: float) -> float:
    low, high = seen.drop, 1.0
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if drop_is_below(seen, middle, confidence):
            high = middle
        else:
            low = middle
    return high


def _p_below(seen: Discordance, limit: float, error: float) -> float:
    """The p value of the hypothesis "the drop is at least `limit`"."""
    if seen.drop >= limit or limit <= -1:
        return 1.0
    if limit >= 1:
        return 0.0
    observed = _score(np.array([seen.lost]), np.array([seen.gained]), seen.n, limit)[0]
    share = error * _BERGER_BOOS_SHARE
    trusted = proportion_bounds(seen.gained, seen.n, 1 - share)
    least, most = max(trusted.low, -limit, 0.0), min(trusted.high, (1 - limit) / 2)
    if least > most:
        return share
    gained = np.arange(_binomial_reach(seen.n, most) + 1)
    lost = _largest_lost(observed, gained, seen.n, limit)
    grid = np.linspace(least, most, _GRID)
    tails = _tail(lost, gained, seen.n, limit, grid)
    peak = int(tails.argmax())
    around = np.linspace(grid[max(peak - 1, 0)], grid[min(peak + 1, _GRID - 1)], _GRID)
    finer = _tail(lost, gained, seen.n, limit, around)
    return min(1.0, float(max(tails.max(), finer.max())) + share + _TAIL)


def _score(lost: np.ndarray, gained: np.ndarray, n: int, limit: float) -> np.ndarray:
    """Tango's score statistic: small where the data speak for a drop below `limit`."""
    b, c = lost.astype(float), gained.astype(float)
    linear = (b + c) * (1 - limit) - 2 * limit * (n - b)
    root = np.sqrt(np.maximum(linear**2 + 8 * n * c * limit * (1 - limit), 0))
    fitted = np.clip((linear + root) / (4 * n), max(0.0, -limit), (1 - limit) / 2)
    variance = n * np.maximum(2 * fitted + limit * (1 - limit), 0)
    distance = b - c - n * limit
    with np.errstate(divide="ignore", invalid="ignore"):
        score = distance / np.sqrt(variance)
    return np.where(distance == 0, 0.0, score)


def _largest_lost(observed: float, gained: np.ndarray, n: int, limit: float) -> np.ndarray:
    """For each `gained`, the largest `lost` at least as extreme as observed; -1 for none.

    The score grows with `lost`, so this is a bisection, on all `gained` at once.
    """
    low = np.full(gained.shape, -1)
    high = n - gained
    slack = 1e-9 * max(1.0, abs(observed))
    while (low < high).any():
        middle = (low + high + 1) // 2
        fits = _score(middle, gained, n, limit) <= observed + slack
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return low


def _tail(
    lost: np.ndarray, gained: np.ndarray, n: int, limit: float, shares: np.ndarray
) -> np.ndarray:
    """P(at least as extreme) for each assumed P(gained), the drop being exactly `limit`."""
    q = shares[:, None]
    log_choose = special.gammaln(n + 1) - special.gammaln(gained + 1)
    log_choose = log_choose - special.gammaln(n - gained + 1)
    logs = log_choose + special.xlogy(gained, q) + special.xlog1py(n - gained, -q)
    rest = np.maximum(1 - q, np.finfo(float).tiny)
    p_lost = np.clip((q + limit) / rest, 0.0, 1.0)
    trials = n - gained
    # P(Binomial(trials, p) <= k), which is 1 where k covers every trial and 0 for k < 0
    below = special.betainc(
        np.maximum(trials - lost, 1),
        np.maximum(lost, 0) + 1,
        np.broadcast_to(1 - p_lost, logs.shape),
    )
    below = np.where(lost >= trials, 1.0, np.where(lost < 0, 0.0, below))
    total: np.ndarray = (np.exp(logs) * below).sum(axis=1)
    return total


def _binomial_reach(n: int, share: float) -> int:
    """A count that a binomial variable exceeds with a probability below `_TAIL`."""
    spread = math.sqrt(n * share * (1 - share))
    return min(n, math.ceil(n * share + 7 * spread + 25))
