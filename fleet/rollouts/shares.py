"""Shares of devices with their interval: what so many devices can say, and how many would."""

import math
from functools import lru_cache
from statistics import NormalDist

import msgspec

CONFIDENCE = 0.95
_MOST = 1_000_000


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """`count` of `n` devices, with the two-sided Wilson score interval.

    Where `n` are all that there are (`of`), nothing is uncertain.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927).
    """

    count: int
    n: int
    of: int

    @property
    def value(self) -> float:
        """The share; 0 without devices."""
        return self.count / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share of all of them lies."""
        if self.n >= self.of:
            return self.value, self.value
        low, high = _wilson(self.count, self.n)
        # Those that were seen are no sample any more: so many have it, so many do not.
        least, most = self.count / self.of, 1 - (self.n - self.count) / self.of
        return max(low, least), min(high, most)

    def needed(self, bound: float) -> int:
        """How many devices would set the interval clear of a bound, if the share stays as it is."""
        n = max(1, self.n)
        while n < min(self.of, _MOST):
            low, high = Share(count=round(self.value * n), n=n, of=self.of).interval
            if low > bound or high <= bound:
                return n
            n = max(n + 1, math.ceil(n * 1.1))
        return self.of


def _wilson(count: int, n: int) -> tuple[float, float]:
    if n == 0:
        return 0.0, 1.0
    z, share = _z(), count / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@lru_cache(maxsize=1)
def _z() -> float:
    return NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
