"""Windows: times that recur on some days of the week, for device and fleet alike. Pure.

A window with `begins = "22:00"`, `ends = "05:00"` ends on the day after it began; `days` are those
on which it begins. Its clock is the device's own (`timezone = "device"`), or that of a zone.

    >>> night = UpdateWindow(begins="22:00", ends="05:00")
    >>> opens_in([night], 4 * 3600.0, 0), opens_in([night], 20 * 3600.0, 3600)
    (0.0, 3600.0)
"""

import datetime as dt
import re
import zoneinfo
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

DEVICE_TIME = "device"
HELD = "it waits for its update window"
_DAY_S = 86400.0
_MOST_DAYS = 400  # further back nobody asks; it bounds the work
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME_OF_DAY = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
TimeOfDay = Annotated[str, Meta(pattern=_TIME_OF_DAY)]


class UpdateWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A time that recurs on some days of the week, in which a device may be updated.

    `days` are those on which it begins, every day by default; `ends` is on the next day where it
    is not after `begins`; `timezone` is `device`, what the device's clock is set to, or a
    zone's name such as `Europe/Berlin`.
    """

    days: Annotated[tuple[Day, ...], Meta(min_length=1)] = DAYS
    begins: TimeOfDay
    ends: TimeOfDay
    timezone: Annotated[str, Meta(max_length=64)] = DEVICE_TIME

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
            begins = self._begins(today + day)
            if begins is not None and begins + self.length_s > local:
                waits.append(max(0.0, begins - local))
        return min(waits)

    def spans(self, since: float, until: float, offset_s: int) -> list[tuple[float, float]]:
        """When it was open between two times, in Unix seconds, in order."""
        first = (since + offset_s) // _DAY_S - 1
        last = (until + offset_s) // _DAY_S
        found = []
        for number in range(int(max(first, last - _MOST_DAYS)), int(last) + 1):
            begins = self._begins(number)
            if begins is None:
                continue
            at = begins - offset_s
            if at < until and at + self.length_s > since:
                found.append((max(since, at), min(until, at + self.length_s)))
        return found

    def _begins(self, day: float) -> float | None:
        """When it begins on a day of local time; None where it does not."""
        if DAYS[int(day + 3) % 7] not in self.days:
            return None
        return day * _DAY_S + _seconds(self.begins)

    @property
    def length_s(self) -> float:
        """How long it is open; one that ends when it begins is open for a day."""
        return (_seconds(self.ends) - _seconds(self.begins)) % _DAY_S or _DAY_S

    def __str__(self) -> str:
        days = "every day" if set(self.days) == set(DAYS) else ", ".join(self.days)
        zone = "device time" if self.timezone == DEVICE_TIME else self.timezone
        return f"{days} {self.begins} to {self.ends} {zone}"


def opens_in(windows: Iterable[UpdateWindow], now: float, device_offset_s: int | None) -> float:
    """Seconds until a device may be updated: 0 in a window, and where there are none."""
    return min((w.opens_in(now, w.offset(now, device_offset_s)) for w in windows), default=0.0)


def open_s(
    windows: Sequence[UpdateWindow], since: float, until: float, device_offset_s: int | None
) -> float:
    """For how many of the seconds between two times a device might have been updated.

    >>> open_s([UpdateWindow(begins="22:00", ends="05:00")], 0.0, 86400.0, 0) / 3600
    7.0
    """
    if not windows:
        return max(0.0, until - since)
    spans = (s for w in windows for s in w.spans(since, until, w.offset(until, device_offset_s)))
    return sum(ends - begins for begins, ends in _joined(spans))


def overlap(each: Iterable[tuple[Sequence[UpdateWindow], int | None]], now: float) -> bool:
    """Whether all of several devices may be updated at one time of the coming week.

    Args:
        each: the windows of each, and how far its clock is ahead of UTC in seconds.
        now: Unix seconds.

    >>> night, noon = UpdateWindow(begins="22:00", ends="05:00"), UpdateWindow(begins="12:00",
    ...     ends="13:00")
    >>> overlap([([night], 0), ([noon], 0)], 0.0), overlap([([night], 0), ([noon], -36000)], 0.0)
    (False, True)
    """
    until = now + 8 * _DAY_S
    common = [(now, until)]
    for windows, offset in each:
        if windows:
            spans = _joined(s for w in windows for s in w.spans(now, until, w.offset(now, offset)))
            both = ((max(a, c), min(b, d)) for a, b in common for c, d in spans)
            common = [(begins, ends) for begins, ends in both if begins < ends]
    return bool(common)


def _joined(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of time in order, those that touch as one."""
    found: list[tuple[float, float]] = []
    for begins, ends in sorted(spans):
        if found and begins <= found[-1][1]:
            found[-1] = found[-1][0], max(ends, found[-1][1])
        else:
            found.append((begins, ends))
    return found


def told(windows: Iterable[UpdateWindow]) -> str:
    """`every day 22:00 to 05:00 device time or sat, sun 10:00 to 12:00 Europe/Berlin`."""
    return " or ".join(str(window) for window in windows)


def closed(windows: Sequence[UpdateWindow], now: float, device_offset_s: int | None) -> str:
    """Why no update may go on at this time, as a device says it; empty where one may.

    >>> closed([UpdateWindow(begins="22:00", ends="05:00", timezone="UTC")], 43200.0, None)
    'it waits for its update window (every day 22:00 to 05:00 UTC)'
    """
    try:
        waits_s = opens_in(windows, now, device_offset_s)
    except (zoneinfo.ZoneInfoNotFoundError, OSError) as error:
        return f"{HELD}, and this device does not know its time zone any more: {error}"
    return f"{HELD} ({told(windows)})" if waits_s else ""


def is_time_of_day(text: object) -> bool:
    """Whether it is a time such as `22:00`."""
    return isinstance(text, str) and re.fullmatch(_TIME_OF_DAY, text) is not None


def is_timezone(name: str) -> bool:
    """Whether a window may be in it."""
    if name == DEVICE_TIME:
        return True
    try:
        _zone(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _seconds(time: str) -> float:
    hours, _, minutes = time.partition(":")
    return int(hours) * 3600.0 + int(minutes) * 60.0


@lru_cache(maxsize=64)
def _zone(name: str) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(name)


def _offset(name: str, now: float) -> int:
    shift = dt.datetime.fromtimestamp(now, _zone(name)).utcoffset()
    return int(shift.total_seconds()) if shift else 0
