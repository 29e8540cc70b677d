"""The options of charts, as ECharts wants them; readable on both themes. Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

# Distinct for most who do not tell all colours apart, and on light and dark alike (Okabe and Ito).
COLOURS = ("#3b82d6", "#e08a1e", "#22a06b", "#c65bb0", "#8a7be0", "#d9534f", "#2aa7b8", "#9a8c3c")
_QUIET = "#8491a0"
_LINE = "#8491a033"
_FAIL = "#d9534f"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a chart: Unix seconds and values; None is a gap.

    `low` and `high` are the bounds of its interval, point for point, or empty.
    """

    name: str
    points: tuple[tuple[float, float | None], ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


def lines(
    shown: Sequence[Line],
    *,
    unit: str = "",
    begin: float | None = None,
    end: float | None = None,
    threshold: tuple[str, float] | None = None,
    percent: bool = False,
    zoom: bool = False,
) -> dict[str, Any]:
    """Lines over time, with their intervals as bands and a threshold.

    Args:
        shown: the lines.
        unit: of the values.
        begin: where the time axis begins, Unix seconds; end likewise.
        end: see `begin`.
        threshold: its name and value, a dashed line.
        percent: values are shares, shown in per cent.
        zoom: a drag over the chart chooses a time range (see `parts.zoomed`).
    """
    series: list[dict[str, Any]] = []
    for number, line in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        series += [*_band(line, colour), _line(line, colour)]
    if threshold is not None and series:
        name, value = threshold
        series[-1]["markLine"] = {
            "silent": True,
            "symbol": "none",
            "lineStyle": {"color": _FAIL, "type": "dashed"},
            "label": {"formatter": name, "position": "insideEndTop", "color": _FAIL},
            "data": [{"yAxis": value}],
        }
    shown_as = "(value * 100).toPrecision(3) * 1 + ' %'" if percent else _number(unit)
    options: dict[str, Any] = {
        **_base([line.name for line in shown]),
        "xAxis": {
            "type": "time",
            "min": begin * 1000 if begin is not None else None,
            "max": end * 1000 if end is not None else None,
            "axisLine": {"lineStyle": {"color": _LINE}},
            "axisLabel": {"color": _QUIET, "hideOverlap": True},
            "splitLine": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "min": 0,
            "axisLabel": {"color": _QUIET, ":formatter": f"(value) => {shown_as}"},
            "splitLine": {"lineStyle": {"color": _LINE}},
        },
        "series": series,
    }
    options["tooltip"][":valueFormatter"] = f"(value) => value == null ? '-' : {shown_as}"
    if zoom:
        options["brush"] = {"xAxisIndex": 0, "toolbox": [], "transformable": False}
    return options


def _base(names: Sequence[str]) -> dict[str, Any]:
    return {
        "animation": False,
        "useUTC": True,
        "aria": {"enabled": True},
        "backgroundColor": "transparent",
        "color": list(COLOURS),
        "textStyle": {"fontFamily": "inherit"},
        "grid": {
            "left": 8,
            "right": 14,
            "top": 14,
            "bottom": 34 if len(names) > 1 else 8,
            "containLabel": True,
        },
        "legend": {
            "show": len(names) > 1,
            "data": list(names),
            "bottom": 0,
            "type": "scroll",
            "textStyle": {"color": _QUIET},
            "icon": "roundRect",
            "itemHeight": 4,
            "itemWidth": 14,
        },
        "tooltip": {"trigger": "axis", "confine": True, "renderMode": "richText"},
    }


def _line(line: Line, colour: str) -> dict[str, Any]:
    return {
        "type": "line",
        "name": line.name,
        "color": colour,
        "showSymbol": len(line.points) == 1,
        "lineStyle": {"width": 2},
        "data": [[at * 1000, value] for at, value in line.points],
    }


def _band(line: Line, colour: str) -> list[dict[str, Any]]:
    """The interval, as a stack of its lower bound, unseen, and its width."""
    if not line.low:
        return []
    times = [at * 1000 for at, _ in line.points]
    pairs = list(zip(line.low, line.high, strict=True))
    below = [[at, low] for at, (low, _) in zip(times, pairs, strict=True)]
    width = [
        [at, None if low is None or high is None else high - low]
        for at, (low, high) in zip(times, pairs, strict=True)
    ]
    shared = {
        "type": "line",
        "stack": f"interval of {line.name}",
        "symbol": "none",
        "silent": True,
        "lineStyle": {"opacity": 0},
        "tooltip": {"show": False},
    }
    return [
        {**shared, "name": f"{line.name}, from", "data": below},
        {
            **shared,
            "name": f"{line.name}, 95 % interval",
            "data": width,
            "areaStyle": {"color": colour, "opacity": 0.18},
        },
    ]


def _number(unit: str) -> str:
    suffix = f" + ' {unit}'" if unit else ""
    return (
        "(Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en-US')"
        f" : String(value.toPrecision(3) * 1)){suffix}"
    )
