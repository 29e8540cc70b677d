"""Monitoring: latency, errors, rates and confidence over any time, by what series differ in."""

from collections.abc import Mapping
from typing import Any

import msgspec
from nicegui import ui

from edgeml.errors import EdgemlError
from fleet.console import parts
from fleet.console.device_parts import Table
from fleet.console.parts import write
from fleet.console.shell import Visit, page
from fleet.console.views import charts
from fleet.console.views import monitoring as view
from fleet.console.views.monitoring import Wanted
from fleet.rollouts.selector import Selector
from fleet.services import metrics, releases
from fleet.services.census import census
from fleet.services.context import Services
from fleet.services.metrics import STAGES, Metrics

_EVERY_S = 10.0
_HEAD = ("Series", "Inferences", "p50", "p95", "p99", "Errors", "Confident", "Memory, most")


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What can be chosen: models, releases by digest (`model:version`), hardware classes."""

    models: tuple[str, ...]
    releases: dict[str, str]
    classes: tuple[str, ...]


def choices(services: Services, scope: Selector) -> Choices:
    """Read what can be chosen; blocks."""
    found = releases.list_releases(services)
    counted = census(services, scope)
    return Choices(
        models=tuple(sorted({one["model"] for one in found})),
        releases={one["digest"]: f"{one['model']}:{one['version']}" for one in found},
        classes=tuple(one["hardware_class"] for one in counted["classes"]),
    )


@page("/monitoring", "Monitoring")
async def show(visit: Visit) -> None:
    """Draw it, and keep it live."""
    await _Page(visit).draw()


class _Page:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._wanted = view.wanted(visit.request.query_params)
        self._charts: dict[str, ui.echart] = {}

    async def draw(self) -> None:
        services, scope = self._visit.services, self._visit.scope
        self._choices = await self._visit.shared(
            "choices", lambda: choices(services, scope), every_s=_EVERY_S
        )
        self._controls()
        self._about = write("p", "", "soft small")
        self._wrong = parts.redraw(lambda error: parts.problem(error) if error else None)
        with ui.element("div").classes("two"):
            for name, chart in view.CHARTS.items():
                with parts.panel(chart.title):
                    shown = parts.plot({}, label=f"{chart.title} over time")
                    parts.zoomed(shown, self._zoom)
                    self._charts[name] = shown
        self._more = parts.redraw(self._draw_measured, "two")
        with parts.panel("Over the whole range"):
            self._table = Table(_HEAD, "Totals over the whole range")
            self._nothing = parts.redraw(_nothing)
            write("p", "The same numbers from the REST API:", "soft small")
            self._address = parts.redraw(parts.command)
        await self._refresh()
        self._visit.live(self._if_live, _EVERY_S)

    def _controls(self) -> None:
        chosen = self._wanted
        names = self._choices.releases.values()
        with ui.element("div").classes("controls"):
            ranges = {name: text for name, (text, _) in view.RANGES.items()}
            pressed = chosen.quick if chosen.is_live else ""
            self._press = parts.segments("Time range", ranges, pressed, self._quick)
            with ui.element("div").classes("segments").props("role=group aria-label=Zoom"):
                for text, shift, scale in (
                    ("Earlier", -0.5, 1.0),
                    ("Later", 0.5, 1.0),
                    ("Zoom in", 0.0, 0.5),
                    ("Zoom out", 0.0, 2.0),
                ):
                    one = write("button", text)
                    one.props["type"] = "button"
                    one.on("click", self._mover(shift, scale))
        with ui.element("div").classes("controls"):
            parts.choice("Kept apart by", view.BY, chosen.by, self._setter("by"))
            parts.choice("Stage", {s: s for s in STAGES}, chosen.stage, self._setter("stage"))
            parts.choice("Model", _any(self._choices.models), chosen.model, self._setter("model"))
            parts.choice("Release", _any(names), chosen.release, self._setter("release"))
            classes = _any(self._choices.classes)
            setter = self._setter("hardware_class")
            parts.choice("Hardware class", classes, chosen.hardware_class, setter)
            setter = self._setter("selector")
            parts.filter_field("Labels", chosen.selector, setter, "site=north")

    def _setter(self, name: str) -> Any:
        async def change(value: str) -> None:
            await self._change(msgspec.structs.replace(self._wanted, **{name: value}))

        return change

    def _mover(self, shift: float, scale: float) -> Any:
        async def move() -> None:
            now = self._visit.services.now()
            await self._change(view.moved(self._wanted, now, shift, scale))

        return move

    async def _quick(self, name: str) -> None:
        still = msgspec.structs.replace(self._wanted, quick=name, begin=0.0, end=0.0)
        await self._change(still)

    async def _zoom(self, begin: float, end: float) -> None:
        await self._change(view.between(self._wanted, begin, end))

    async def _change(self, to: Wanted) -> None:
        self._wanted = to
        self._press(to.quick if to.is_live else "")
        self._visit.remember(**to.query())
        await self._refresh()

    async def _if_live(self) -> None:
        if self._wanted.is_live:
            await self._refresh()

    async def _refresh(self) -> None:
        services, scope, names = self._visit.services, self._visit.scope, self._choices.releases
        digests = {name: digest for digest, name in names.items()}
        wanted = self._wanted
        asked = view.asked(wanted, digests, services.now())
        found, wrong = None, None
        try:
            found = await self._visit.shared(
                wanted, lambda: metrics.series(services, asked, scope), every_s=_EVERY_S
            )
        except EdgemlError as error:
            wrong = error
        if wanted != self._wanted:  # something else was chosen meanwhile
            return
        self._wrong(wrong)
        if found is None:
            return
        self._about.set_content(parts.escape(view.sentence(found)))
        for name, chart in view.CHARTS.items():
            lines = view.lines(chart, found, names)
            options = charts.lines(
                lines,
                unit=chart.unit,
                percent=chart.percent,
                begin=found["begin"],
                end=found["end"],
                zoom=True,
            )
            self._show(self._charts[name], options)
        self._more((view.measured(found), found))
        rows = view.rows(found, names)
        self._table.show(rows)
        self._nothing(not rows)
        url = f"{services.console_url}{view.address(asked)}"
        self._address(f"curl -H 'Authorization: Bearer TOKEN' '{url}'")

    def _show(self, chart: ui.echart, options: dict[str, Any]) -> None:
        chart.options.clear()
        chart.options.update(options)
        chart.update()

    def _draw_measured(self, shown: tuple[tuple[str, ...], Metrics]) -> None:
        names, found = shown
        for name in names:
            title = name.replace("_", " ").capitalize()
            with parts.panel(title):
                lines = view.measured_lines(name, found, self._choices.releases)
                options = charts.lines(lines, begin=found["begin"], end=found["end"])
                parts.plot(options, label=f"{title} over time")


def _any(values: Any) -> Mapping[str, str]:
    return {"": "any", **{value: value for value in values if value}}


def _nothing(is_empty: bool) -> None:
    if is_empty:
        parts.empty(
            "No telemetry in this range.",
            "Devices send by themselves what their models do. Choose a longer range, or enrol one:",
            "edgeml fleet enroll cam-1 --label site=north",
        )
