"""How long a source waits before it is tried again: longer and longer, with jitter.

>>> backoff = Backoff(spread=lambda: 1.0)
>>> backoff.next_s(), backoff.next_s(), backoff.next_s()
(0.5, 1.0, 2.0)
"""

import random
from collections.abc import Callable

FIRST_S, LONGEST_S = 0.5, 30.0


def _spread() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 -- spreads load, guards nothing


class Backoff:
    """The waits of one source; many that one switch cut off must not come back together."""

    def __init__(self, spread: Callable[[], float] = _spread) -> None:
        self._spread = spread
        self._next = FIRST_S

    def next_s(self) -> float:
        """The seconds to wait now."""
        wait, self._next = self._next, min(self._next * 2, LONGEST_S)
        return wait * self._spread()

    def reset(self) -> None:
        """Begin anew: it worked."""
        self._next = FIRST_S
