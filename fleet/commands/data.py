"""The commands `edgeml devices ledger` and `edgeml devices budget`: what the network costs."""

import re
from typing import Annotated, Any, Literal

import typer

from edgeml.errors import UserError
from fleet.commands.connection import Why
from fleet.commands.session import Session, command

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_NONE = "none"

Device = Annotated[str, typer.Argument(help="The device's id.")]
Size = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Such as 50MB, or none for no bound.")
]


def add(devices_app: typer.Typer) -> None:
    """Add the commands to `edgeml devices`."""
    devices_app.command("ledger")(ledger)
    devices_app.command("budget")(budget)


@command
def ledger(
    fleet: Session,
    device: Device,
    *,
    month: Annotated[str, typer.Option(help="Only of this month, such as 2026-11.")] = "",
    rollout: Annotated[str, typer.Option(help="Only of this rollout.")] = "",
) -> None:
    """Show what a device spent on the network, by month, rollout and cause.

    Counted by the device's kernel: IP packets with all headers, TLS, and what was sent again.
    `retry` is what was spent again or for nothing.
    """
    from fleet.show_data import ledger_text

    found = fleet.client.ledger(device, month=month, rollout=rollout)
    text = ledger_text(found)
    if not found["lines"] and (month or rollout):
        text = f"{device} has told of no cost of {' and '.join(filter(None, (month, rollout)))}."
    fleet.show(found, text)


@command
def budget(
    fleet: Session,
    device: Device,
    *,
    month: Size = None,
    rollout: Size = None,
    begins: Annotated[
        int | None, typer.Option(min=1, max=28, help="The day on which a month begins (UTC).")
    ] = None,
    when_spent: Annotated[
        Literal["wait", "refuse"] | None, typer.Option(help="What an update does then.")
    ] = None,
    why: Why = "",
) -> None:
    """Show or set what a device may spend on the network.

    --month bounds all that it sends and receives, --rollout what the updates of one rollout may
    cost, in place of the policy's data_budget_mb. An update that does not fit waits, or is
    refused with `budget` and says what it needs. What is not named stays as it is.

        edgeml devices budget cam-1 --month 500MB --rollout 40MB --begins 15
    """
    from fleet.show_data import budget_text

    changes: dict[str, Any] = {
        "month_bytes": _size(month),
        "rollout_bytes": _size(rollout),
        "month_begins": begins,
        "when_spent": when_spent,
    }
    given = {"month_bytes": month, "rollout_bytes": rollout}
    changes = {k: v for k, v in changes.items() if v is not None or given.get(k) is not None}
    found = fleet.client.device(device)
    if changes:
        settings = fleet.client.settings(device)
        settings["data_budget"] = {**settings.get("data_budget", {}), **changes}
        found = fleet.client.configure(device, settings, why)
    spent = fleet.client.ledger(device)
    wanted = found["configuration"].get("data_budget", {})
    fleet.show({"device": device, "data_budget": wanted}, budget_text(wanted, spent))


def _size(text: str | None) -> int | None:
    """Bytes of `50MB`; None of `none` and of nothing.

    >>> _size("1.5MB"), _size("none"), _size("300")
    (1500000, None, 300)
    """
    if text is None or text.lower() == _NONE:
        return None
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([KMG]?B?)", text.strip().upper())
    unit = found[2] if found else "?"
    unit = unit if unit in _UNITS else f"{unit}B"
    if found is None or unit not in _UNITS:
        raise UserError(f"{text[:40]!r} is no size.", fix="Write 50MB, 1.5GB, 300KB or none.")
    return round(float(found[1]) * _UNITS[unit])
