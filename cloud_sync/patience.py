"""How often to try again over HTTP, and how long to wait: bounded, growing, with jitter.

>>> patience = Patience(attempts=2, spread=lambda: 1.0)
>>> patience.failed(), patience.failed()
(0.5, None)
"""

import random
from collections.abc import Callable

import httpx

ATTEMPTS = 5
BACKOFF_S = 0.5
MAX_PAUSE_S = 30.0

# Answers that the same request may not get again.
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


def _spread() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 -- spreads load, guards nothing


class Patience:
    """One request's attempts.

    Args:
        attempts: how many in a row may fail.
        spread: the jitter, a factor; clients that failed together must not come back together.
    """

    def __init__(self, attempts: int = ATTEMPTS, *, spread: Callable[[], float] = _spread) -> None:
        self._attempts = attempts
        self._spread = spread
        self._failures = 0

    def failed(self, response: httpx.Response | None = None) -> float | None:
        """The seconds to wait before the next attempt, or None to give up.

        Args:
            response: the answer, where there was one; its Retry-After in seconds is heeded.
        """
        self._failures += 1
        if self._failures >= self._attempts:
            return None
        pause = BACKOFF_S * float(2 ** (self._failures - 1))
        asked = response.headers.get("retry-after", "") if response is not None else ""
        if asked.isascii() and asked.isdigit():
            pause = max(pause, int(asked[:9]))
        return min(pause, MAX_PAUSE_S) * self._spread()

    def progressed(self) -> None:
        """Say that something was won, so that the count begins anew."""
        self._failures = 0
