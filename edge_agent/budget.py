"""The data budget: how much a device may send and receive, and what fits into it. Pure."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta

import msgspec

from cloud_sync.messages import DataBudget
from edgeml.errors import DeviceError

# What TCP, IP and TLS put around a blob's bytes where a packet has 1500, acknowledgements in it.
OVERHEAD = 0.08
OVERHEAD_BYTES = 16 << 10


class BudgetSpent(DeviceError):  # noqa: N818 -- a state of things, more than a fault
    """What is to be fetched does not fit into the data budget.

    Attributes:
        waits: whether the update is to wait for more, rather than to be refused.
    """

    def __init__(self, what: str, *, why: str, fix: str, waits: bool) -> None:
        super().__init__(what, why=why, fix=fix)
        self.waits = waits


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
    return f"{_within(unix_s, begins):%Y-%m}"


def share_of_month(unix_s: float, begins: int) -> float:
    """How much of the budget's month has passed, this day included.

    >>> share_of_month(14 * 86400.0, 1), share_of_month(30 * 86400.0, 1)
    (0.4838709677419355, 1.0)
    """
    now = _within(unix_s, begins)
    return now.day / monthrange(now.year, now.month)[1]


def _within(unix_s: float, begins: int) -> datetime:
    """The time, moved so that the budget's month is the calendar's."""
    return datetime.fromtimestamp(unix_s, UTC) - timedelta(days=begins - 1)


def cost(payload: int) -> int:
    """What it takes, at most, to fetch so many bytes over TLS with all that is around them."""
    return int(payload * (1 + OVERHEAD)) + OVERHEAD_BYTES if payload else 0


def refusal(need: int, left: int, bound: int, whose: str, *, waits: bool) -> BudgetSpent:
    """The error of a budget that has too little left."""
    what = f"about {need / 1e6:.2f} MB are needed" if need else "nothing may be fetched"
    return BudgetSpent(
        f"budget: {what}, {max(0, left) / 1e6:.2f} MB are left.",
        why=f"The data budget {whose} is {bound / 1e6:.2f} MB.",
        fix="Raise it: edgeml devices budget --help",
        waits=waits,
    )


def uncounted(*, waits: bool) -> BudgetSpent:
    """The error that a budget is set where the kernel does not count what it bounds."""
    return BudgetSpent(
        "budget: what an update costs cannot be counted here.",
        why="This kernel does not tell what a connection cost (Linux 4.19 and newer do).",
        fix="Take the data budget away, or update the kernel.",
        waits=waits,
    )
