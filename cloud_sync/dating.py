"""What time it was: records are dated by the fleet's word where the device's clock is wrong.

Every ack carries the fleet's time, signed, when it was made. It was made before it came, so each
proves a least time, and the latest proof is nearest to the truth: an ack that was held back on
the way moves nothing. A board without a battery that came up in 2000, or in 2040, thus dates
what it has recorded since it came up as soon as the fleet has answered once.
"""

import time

# The first of 2025: a clock before that was never set.
EARLIEST_S = 1_735_689_600.0
# How far a clock may be off before it is overruled: an ack takes a while to come.
CLOCK_OFF_S = 60.0
# No crystal is worse; so fast may the fleet's clock fall behind this device's monotonic one.
DRIFT = 1e-4


def wall_clock() -> float | None:
    """This device's time in Unix seconds; None where its clock was never set."""
    now = time.time()
    return now if now >= EARLIEST_S else None


class Dating:
    """The time of this boot's moments; see the module."""

    def __init__(self) -> None:
        self._zero: float | None = None  # the time when the monotonic clock was zero
        self._learned = 0.0

    @property
    def is_known(self) -> bool:
        """Whether the fleet has told the time since this was made."""
        return self._zero is not None

    def learn(self, told: float, monotonic: float) -> None:
        """Take the fleet's time, which came at a moment of the monotonic clock."""
        zero = told - monotonic
        if self._zero is not None:
            zero = max(zero, self._zero - DRIFT * (monotonic - self._learned))
        self._zero, self._learned = zero, monotonic

    def date(self, at: float | None, monotonic: float) -> float | None:
        """When something was recorded.

        Args:
            at: by this device's clock, in Unix seconds; None where that was never set.
            monotonic: by the monotonic clock of this boot, in seconds.

        >>> dating = Dating()
        >>> dating.date(None, 20.0)
        >>> dating.learn(1_800_000_100.0, 100.0)
        >>> dating.date(None, 20.0)
        1800000020.0
        """
        if self._zero is None:
            return at
        proven = self._zero + monotonic
        return at if at is not None and abs(at - proven) <= CLOCK_OFF_S else proven
