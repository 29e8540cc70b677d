"""The data budget: how much a device may send and receive, and what fits into it. Pure."""

from calendar import monthrange

from cloud_sync.data_budget import within
from edgeml.errors import DeviceError


class BudgetSpent(DeviceError):  # noqa: N818 -- a state of things, more than a fault
    """What is to be fetched does not fit into the data budget.

    Attributes:
        waits: whether the update is to wait for more, rather than to be refused.
    """

    def __init__(self, what: str, *, why: str, fix: str, waits: bool) -> None:
        super().__init__(what, why=why, fix=fix)
        self.waits = waits


def share_of_month(unix_s: float, begins: int) -> float:
    """How much of the budget's month has passed, this day included.

    >>> share_of_month(14 * 86400.0, 1), share_of_month(30 * 86400.0, 1)
    (0.4838709677419355, 1.0)
    """
    now = within(unix_s, begins)
    return now.day / monthrange(now.year, now.month)[1]


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
