"""The fleet at a glance, as `edgeml top` shows it: health, alerts, rollouts, models, rates."""

from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fleet.alerts.resources import AlertInfo
from fleet.resources import Health, ModelInfo, RolloutInfo
from fleet.show import counts, table, when

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
        *_alerts(overview.alerts),
        *_rollouts(overview.rollouts),
        *_models(overview.models),
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
    )
    now_said = Text(f"{when(now)}  {rates_said}".rstrip(), style="dim")
    return Group(head, now_said, *_frozen(health))


def _frozen(health: Health) -> Sequence[Text]:
    return [Text(health["frozen"], style="bold red")] if health["frozen"] else []


def _alerts(alerts: Sequence[AlertInfo]) -> list[Table]:
    rows = _table("alert", "since", "by", "what")
    for one in alerts[:_MAX_ROWS]:
        style = "dim" if one["acknowledged_at"] else _COLOURS.get(one["severity"], "")
        rows.add_row(
            str(one["id"]),
            when(one["began_at"]),
            one["acknowledged_by"] or "-",
            one["summary"],
            style=style,
        )
    return [rows] if alerts else []


def _rollouts(rollouts: Sequence[RolloutInfo]) -> list[RenderableType]:
    """Each with its sentence below it: beside the figures there is no room for one."""
    shown = rollouts[:_MAX_ROWS]
    rows = [[r["id"], r["status"], f"{r['wave']}/{r['waves']}", counts(r)] for r in shown]
    head, *lines = table(["rollout", "status", "wave", "devices"], rows).splitlines()
    said: list[RenderableType] = [Text(head, style="bold")]
    for line, rollout in zip(lines, shown, strict=True):
        said += [Text(line), Padding(Text(rollout["sentence"]), (0, 0, 0, 2))]
    return said if shown else []


def _models(models: Sequence[ModelInfo]) -> list[Table]:
    rows = _table("model", "latest", "devices run")
    for one in models[:_MAX_ROWS]:
        running = ", ".join(f"{n:,} x {version}" for version, n in sorted(one["running"].items()))
        rows.add_row(one["model"], one["latest"], running or "-")
    return [rows] if models else []


def _table(*head: str) -> Table:
    """Columns whose last one alone is wrapped where the terminal is narrow."""
    columns = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in head:
        columns.add_column(name, overflow="fold", no_wrap=name != head[-1])
    return columns
