"""How often somebody may ask: a token bucket for each, of a bounded number of them."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

_MAX_KEYS = 10_000


@dataclass(frozen=True)
class Rate:
    """`burst` at once, and `per_s` a second in the long run."""

    burst: int
    per_s: float


@dataclass(frozen=True)
class Rates:
    """What the operators' listener bears; each process counts for itself.

    `login` is for each address, `user` for each user's name, whoever tries it: more, so that one
    address alone keeps nobody out. `request` is for each token or session, `stranger` for each
    address without either.
    """

    login: Rate = Rate(burst=20, per_s=0.2)
    user: Rate = Rate(burst=100, per_s=1.0)
    request: Rate = Rate(burst=2000, per_s=200.0)
    stranger: Rate = Rate(burst=2000, per_s=20.0)


class Buckets:
    """A bucket for each key; the ones that were asked least lately are forgotten at the bound.

    Args:
        rate: of each bucket.
        clock: monotonic seconds.

    >>> buckets = Buckets(Rate(burst=1, per_s=0.5), clock=lambda: 0.0)
    >>> buckets.wait_s("a"), buckets.wait_s("a")
    (0.0, 2.0)
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: Hashable) -> float:
        """Take one from a key's bucket: 0.0, or the seconds to wait where there is none."""
        now = self._clock()
        with self._lock:
            filled, at = self._buckets.get(key, (float(self._rate.burst), now))
            filled = min(float(self._rate.burst), filled + (now - at) * self._rate.per_s)
            taken = filled >= 1.0
            self._buckets[key] = (filled - 1.0 if taken else filled, now)
            self._buckets.move_to_end(key)
            if len(self._buckets) > _MAX_KEYS:
                self._buckets.popitem(last=False)
        return 0.0 if taken else (1.0 - filled) / self._rate.per_s
