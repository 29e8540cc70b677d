"""What the network costs, as text for a terminal."""

from typing import Any

from fleet.resources import LedgerInfo
from fleet.show import table

_SMALL = 100_000


def ledger_text(ledger: LedgerInfo) -> str:
    """A table by month, rollout and cause, and the months' totals."""
    if not ledger["lines"]:
        return f"{ledger['device']} has told of no cost yet; it does every ten minutes."
    rows = [
        [
            line["month"],
            line["rollout"] or "-",
            line["cause"],
            megabytes(line["received"]),
            megabytes(line["sent"]),
            f"{line['failures']} failed: {line['note']}" if line["failures"] else "",
        ]
        for line in ledger["lines"]
    ]
    totals = ", ".join(f"{month}: {megabytes(spent)}" for month, spent in _months(ledger).items())
    lines = table(["month", "rollout", "cause", "received", "sent", ""], rows)
    return f"{lines}\n\nin all {totals}"


def budget_text(budget: dict[str, Any], ledger: LedgerInfo) -> str:
    """The bounds, beside what was spent in the newest month that the device told of."""
    month, rollout = budget.get("month_bytes"), budget.get("rollout_bytes")
    months = _months(ledger)
    newest = next(iter(months), "")
    spent = f", {megabytes(months[newest])} spent in {newest}" if newest else ""
    begins = budget.get("month_begins", 1)
    waits = budget.get("when_spent", "wait") == "wait"
    return "\n".join(
        [
            f"a month, from day {begins}: {_bound(month)}{spent}",
            f"a rollout: {_bound(rollout) if rollout is not None else 'as its policy says'}",
            f"an update that does not fit {'waits' if waits else 'is refused'}",
        ]
    )


def megabytes(count: int) -> str:
    """Bytes as people pay for them.

    >>> megabytes(1_234_567), megabytes(1_600)
    ('1.23 MB', '1.6 KB')
    """
    return f"{count / 1e6:,.2f} MB" if count == 0 or count >= _SMALL else f"{count / 1e3:.1f} KB"


def _bound(count: int | None) -> str:
    return "no bound" if count is None else megabytes(count)


def _months(ledger: LedgerInfo) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in ledger["lines"]:
        found[line["month"]] = found.get(line["month"], 0) + line["sent"] + line["received"]
    return found
