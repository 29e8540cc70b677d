"""The data budget for device and fleet alike: its bounds, its months, what a blob costs. Pure."""

from datetime import UTC, datetime, timedelta

import msgspec

from cloud_sync.messages import DataBudget

# What TCP, IP and TLS put around a blob's bytes where a packet has 1500, acknowledgements in it.
OVERHEAD = 0.08
OVERHEAD_BYTES = 16 << 10


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The budget that holds for one rollout on this device, in bytes; None is no bound."""

    month_bytes: int | None = None
    rollout_bytes: int | None = None
    month_begins: int = 1
    waits: bool = True


def bounds(budget: DataBudget, rollout_bytes: int = 0) -> Bounds:
    """The device's budget, with what the rollout's policy allows where the device says nothing.

    >>> bounds(DataBudget(), 100).rollout_bytes
    100
    >>> bounds(DataBudget(rollout_bytes=7), 100).rollout_bytes
    7
    """
    own = budget.rollout_bytes
    return Bounds(
        month_bytes=budget.month_bytes,
        rollout_bytes=own if own is not None else rollout_bytes or None,
        month_begins=budget.month_begins,
        waits=budget.when_spent == "wait",
    )


def month_of(unix_s: float, begins: int) -> str:
    """The budget's month that a time is in, named by the month in which it begins.

    >>> month_of(0.0, 1), month_of(0.0, 2), month_of(86400.0, 2)
    ('1970-01', '1969-12', '1970-01')
    """
    return f"{within(unix_s, begins):%Y-%m}"


def within(unix_s: float, begins: int) -> datetime:
    """A time, moved so that the budget's month is the calendar's."""
    return datetime.fromtimestamp(unix_s, UTC) - timedelta(days=begins - 1)


def cost(payload: int) -> int:
    """What it takes, at most, to fetch so many bytes over TLS with all that is around them."""
    return int(payload * (1 + OVERHEAD)) + OVERHEAD_BYTES if payload else 0
