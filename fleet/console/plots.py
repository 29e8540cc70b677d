"""Charts, drawn by ECharts in the browser; `fleet.console.views.charts` makes their options."""

from collections.abc import Callable
from typing import Any

from nicegui import ui
from nicegui.events import GenericEventArguments


def plot(options: dict[str, Any], *, label: str, height: str = "220px") -> ui.echart:
    """A chart; `fleet.console.views.charts` makes its options. Change `.options` to update it."""
    shown = ui.echart(options).classes("chart").style(f"height: {height}")
    shown.props["role"] = "img"
    shown.props["aria-label"] = label
    return shown


def zoomed(shown: ui.echart, on_range: Callable[[float, float], Any]) -> None:
    """Have a drag over a chart tell a time range, in Unix seconds.

    Needs options of `charts.lines(zoom=True)`; `console.js` arms each drag. With a finger the page
    is scrolled instead.
    """

    def ended(event: GenericEventArguments) -> Any:
        areas = event.args.get("areas") or []
        found = areas[0].get("coordRange") if areas else None
        if found and len(found) == 2:  # noqa: PLR2004
            return on_range(found[0] / 1000, found[1] / 1000)
        return None

    shown.classes("zooms").on("chart:brushEnd", ended, ["areas"])
