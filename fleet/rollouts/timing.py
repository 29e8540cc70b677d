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

import datetime as dt
import zoneinfo
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

DEVICE_TIME = "device"
_MINUTE_S = 60.0
_DAY_S = 86400.0
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TimeOfDay = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time that recurs on some days of the week, in which devices may be given a release."""

    days: Annotated[tuple[Day, ...], Meta(min_length=1)] = DAYS
    begins: TimeOfDay
    ends: TimeOfDay
    timezone: str = DEVICE_TIME

    def offset(self, now: float, device_offset_s: int | None) -> int:
        """How far the window's clock is ahead of UTC, in seconds; unknown device time is UTC."""
        if self.timezone == DEVICE_TIME:
            return device_offset_s or 0
        return _offset(self.timezone, now)

    def opens_in(self, now: float, offset_s: int) -> float:
        """Seconds until it is open, 0 while it is.

        Args:
            now: Unix seconds.
            offset_s: how far the local clock is ahead of UTC.
        """
        local = now + offset_s
        today = local // _DAY_S
        waits = []
        for day in range(-1, 8):  # one that began yesterday may still be open
            begins = (today + day) * _DAY_S + _seconds(self.begins)
            if DAYS[int(today + day + 3) % 7] in self.days and begins + self.length_s > local:
                waits.append(max(0.0, begins - local))
        return min(waits)

    @property
    def length_s(self) -> float:
        """How long it is open; one that ends when it begins is open for a day."""
        return (_seconds(self.ends) - _seconds(self.begins)) % _DAY_S or _DAY_S

    def __str__(self) -> str:
        days = "every day" if set(self.days) == set(DAYS) else ", ".join(self.days)
        zone = "device time" if self.timezone == DEVICE_TIME else self.timezone
        return f"{days} {self.begins} to {self.ends} {zone}"


def opens_in(windows: Iterable[Window], now: float, device_offset_s: int | None) -> float:
    """Seconds until a device may be given a release: 0 in a window, and where there are none."""
    return min((w.opens_in(now, w.offset(now, device_offset_s)) for w in windows), default=0.0)


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


def is_timezone(name: str) -> bool:
    """Whether a window may be in it."""
    if name == DEVICE_TIME:
        return True
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def spell(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2.0 days`."""
    if seconds < 120:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    if seconds < 7200:  # noqa: PLR2004
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.1f} days"


def _seconds(time: str) -> float:
    hours, _, minutes = time.partition(":")
    return int(hours) * 3600.0 + int(minutes) * 60.0


@lru_cache(maxsize=64)
def _zone(name: str) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(name)


def _offset(name: str, now: float) -> int:
    shift = dt.datetime.fromtimestamp(now, _zone(name)).utcoffset()
    return int(shift.total_seconds()) if shift else 0
