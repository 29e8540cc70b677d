"""When devices may be given a release: maintenance windows in device time, and the rate.

[[windows]]                  # open in any of them; none: always
days = ["sat", "sun"]        # on which it begins; every day by default
begins = "22:00"
ends = "05:00"               # on the next day, where it is not after the beginning
timezone = "device"          # what each device says its clock is set to; or "Europe/Berlin"

[rate]                       # none: as many as the limit in flight allows
per_minute = 50              # to begin with
increment_factor = 2.0       # what the rate is multiplied with each time that ...
increase_after_committed = 500    # so many more have committed (or increase_after_given)
max_per_minute = 1000
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from cloud_sync.windows import DAYS, UpdateWindow, is_timezone, opens_in

__all__ = ["DAYS", "Rate", "Window", "given_lately", "is_timezone", "opens_in", "spell"]

_MINUTE_S = 60.0
_DAY_S = 86400.0


class Window(UpdateWindow, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time that recurs on some days of the week, in which devices may be given a release."""


class Rate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many devices a minute are given the release, and how that grows."""

    per_minute: Annotated[int, Meta(ge=1, le=1_000_000)]
    increment_factor: Annotated[float, Meta(ge=1, le=5)] = 1.0
    increase_after_given: Annotated[int, Meta(ge=1)] | None = None
    increase_after_committed: Annotated[int, Meta(ge=1)] | None = None
    max_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None

    def now(self, given: int, committed: int) -> int:
        """The devices a minute at this point of the rollout.

        >>> Rate(per_minute=10, increment_factor=2, increase_after_given=100).now(250, 0)
        40
        """
        steps = 0
        if self.increase_after_given:
            steps = given // self.increase_after_given
        elif self.increase_after_committed:
            steps = committed // self.increase_after_committed
        most = self.max_per_minute or 1_000_000
        # Beyond 60 doublings it is at its maximum; a float would overflow first.
        return int(min(most, self.per_minute * self.increment_factor ** min(steps, 60)))


def given_lately(times: Iterable[float], now: float) -> tuple[int, float]:
    """How many were given within the last minute, and in how many seconds the first leaves it."""
    late = [at for at in times if now - at < _MINUTE_S]
    return len(late), max(0.0, min(late) + _MINUTE_S - now) if late else 0.0


def spell(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2.0 days`."""
    if seconds < 120:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    if seconds < 7200:  # noqa: PLR2004
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.1f} days"
