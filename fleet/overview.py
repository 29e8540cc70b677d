"""The fleet at a glance, as `edgeml top` shows it: health, alerts, rollouts, models, rates."""

from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleet.alerts.resources import AlertInfo
from fleet.resources import Health, ModelInfo, RolloutInfo
from fleet.show import counts, when

_MAX_ROWS = 12
_RATES = {
    "ingest.records": "records",
    "ingest.batches": "batches",
    "hello": "hellos",
    "desired.signed": "desired states",
}
_COLOURS = {"critical": "red", "warning": "yellow"}


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at the fleet brought; `rates` are a second, between two looks."""

    health: Health
    alerts: list[AlertInfo]
    rollouts: list[RolloutInfo]
    models: list[ModelInfo]
    rates: dict[str, float]


def rates(before: Mapping[str, int], after: Mapping[str, int], seconds: float) -> dict[str, float]:
    """What was counted in a second; a counter that fell began anew with the fleet.

    >>> rates({"hello": 10}, {"hello": 30}, 10.0)
    {'hellos': 2.0}
    """
    if seconds <= 0:
        return {}
    return {
        said: max(0, after[name] - before.get(name, 0)) / seconds
        for name, said in _RATES.items()
        if name in after
    }


def render(overview: Overview, now: float) -> RenderableType:
    """An overview for a terminal."""
    return Group(
        _head(overview, now),
        *(
            part
            for part in (
                _alerts(overview.alerts),
                _rollouts(overview.rollouts),
                _models(overview.models),
            )
            if part.rows
        ),
    )


def _head(overview: Overview, now: float) -> RenderableType:
    health = overview.health
    offline = health["devices"] - health["online"]
    colour = "green" if health["status"] == "ok" else "red"
    rates_said = ", ".join(f"{value:,.1f} {name}/s" for name, value in overview.rates.items())
    head = Text.assemble(
        (f"fleet {health['status']}", f"bold {colour}"),
        f"  {health['online']:,} online, {offline:,} away of {health['devices']:,} devices",
        f"  alerts: {len(overview.alerts)}",
        f"  {when(now)}",
    )
    rates_line = [Text(rates_said, style="dim")] if rates_said else []
    return Group(head, *rates_line, *_frozen(health))


def _frozen(health: Health) -> Sequence[Text]:
    return [Text(health["frozen"], style="bold red")] if health["frozen"] else []


def _alerts(alerts: Sequence[AlertInfo]) -> Table:
    table = _table("alert", "since", "by", "what")
    for one in alerts[:_MAX_ROWS]:
        style = "dim" if one["acknowledged_at"] else _COLOURS.get(one["severity"], "")
        table.add_row(
            str(one["id"]),
            when(one["began_at"]),
            one["acknowledged_by"] or "-",
            one["summary"],
            style=style,
        )
    return table


def _rollouts(rollouts: Sequence[RolloutInfo]) -> Table:
    table = _table("rollout", "status", "wave", "devices", "why")
    for one in rollouts[:_MAX_ROWS]:
        wave = f"{one['wave']}/{one['waves']}"
        table.add_row(one["id"], one["status"], wave, counts(one), one["sentence"])
    return table


def _models(models: Sequence[ModelInfo]) -> Table:
    table = _table("model", "latest", "devices run")
    for one in models[:_MAX_ROWS]:
        running = ", ".join(f"{n:,} x {version}" for version, n in sorted(one["running"].items()))
        table.add_row(one["model"], one["latest"], running or "-")
    return table


def _table(*head: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in head:
        table.add_column(name, overflow="fold")
    return table
