"""The overview: the fleet's health in one glance, what is in motion, and what wants attention."""

from collections.abc import Sequence

import msgspec
from nicegui import ui

from fleet.console import parts, paths, rollout_parts
from fleet.console.parts import write
from fleet.console.shell import Visit, page
from fleet.console.views import charts
from fleet.console.views import overview as view
from fleet.console.views.overview import Alarm, Bar, Event, Motion, Notice, Tile
from fleet.rollouts.selector import Selector
from fleet.services import alerts, audit, health, metrics, rollouts
from fleet.services.census import census
from fleet.services.context import Caller, Services

SPAN_S = 3600.0
_METRICS_S = 10.0
_ROLLOUTS = 20
_ALERTS = 100
_EVENTS = 12
_OVER = 3


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on the page but for the charts."""

    notices: tuple[Notice, ...]
    tiles: tuple[Tile, ...]
    motions: tuple[Motion, ...]
    alarms: tuple[Alarm, ...]
    more_alarms: int
    over: tuple[Alarm, ...]
    classes: tuple[Bar, ...]
    releases: tuple[Bar, ...]
    events: tuple[Event, ...]


def last_hour(services: Services, scope: Selector) -> metrics.Metrics:
    """How models did in the last hour."""
    now = services.now()
    asked = metrics.Asked(begin=now - SPAN_S, end=now, by=("model",))
    return metrics.series(services, asked, scope)


def read(services: Services, scope: Selector, measured: metrics.Metrics) -> Shown:
    """Read all but the metrics; blocks."""
    now = services.now()
    state = health.show(services, scope)
    found = rollouts.page(services, limit=_ROLLOUTS, scope=scope)["items"]
    firing = alerts.list_alerts(services, state="firing", limit=_ALERTS, scope=scope)["items"]
    over = alerts.list_alerts(services, state="resolved", limit=_OVER, scope=scope)["items"]
    counted = census(services, scope)
    # Of this scope, whoever looks: what the machine's owner did elsewhere is not for them.
    happened = audit.entries(services, limit=_EVENTS, caller=Caller("", scope=scope))
    return Shown(
        notices=view.notices(state),
        tiles=view.tiles(state, found, firing, measured),
        motions=view.motions(found),
        alarms=view.alarms(firing, now),
        more_alarms=max(0, len(firing) - view.MAX_ALERTS),
        over=view.over(over, now),
        classes=view.class_bars(counted),
        releases=view.release_bars(counted),
        events=view.events(happened["items"], now),
    )


@page("/", "Overview")
async def show(visit: Visit) -> None:
    """Draw it, and keep it live."""
    services, scope = visit.services, visit.scope

    async def measured() -> metrics.Metrics:
        return await visit.shared(
            "last hour", lambda: last_hour(services, scope), every_s=_METRICS_S
        )

    async def latest() -> tuple[Shown, metrics.Metrics]:
        series = await measured()
        return await visit.shared("overview", lambda: read(services, scope, series)), series

    now_shown, series = await latest()
    notices = parts.redraw(_notices)
    tiles = parts.redraw(_tiles)
    with ui.element("div").classes("columns"):
        with ui.element("div").classes("lead stack"):
            with ui.element("section").classes("wide").props("aria-label=Rollouts"):
                write("h2", "Rollouts")
                motions = parts.redraw(_motions, "stack")
            with ui.element("div").classes("two"):
                with parts.panel("Inferences a second, last hour"):
                    rate = parts.plot(_rate(series), label="Inferences a second over the last hour")
                with parts.panel("Latency p95, last hour"):
                    p95 = parts.plot(_latency(series), label="Latency p95 over the last hour")
            with ui.element("div").classes("two"):
                with parts.panel("Devices by hardware class"):
                    classes = parts.redraw(lambda bars: _bars(bars, "No device yet."), "bars")
                with parts.panel("Devices by release"):
                    releases = parts.redraw(
                        lambda bars: _bars(bars, "No device runs a model."), "bars"
                    )
        with ui.element("div").classes("side stack"):
            with ui.element("section").props("id=alerts aria-label=Alerts"):
                write("h2", "Alerts")
                alarms = parts.redraw(_alarms, "panel")
            with ui.element("section").props("aria-label='What happened'"):
                write("h2", "What happened")
                events = parts.redraw(_events, "panel")
    plotted = series

    def draw(shown: Shown) -> None:
        notices(shown.notices)
        tiles(shown.tiles)
        motions(shown.motions)
        alarms((shown.alarms, shown.more_alarms, shown.over))
        classes(shown.classes)
        releases(shown.releases)
        events(shown.events)

    async def refresh() -> None:
        nonlocal plotted
        shown, found = await latest()
        draw(shown)
        if found is not plotted:
            plotted = found
            for chart, options in ((rate, _rate(found)), (p95, _latency(found))):
                chart.options.update(options)
                chart.update()

    draw(now_shown)
    visit.live(refresh)


def _rate(series: metrics.Metrics) -> dict[str, object]:
    return charts.lines(view.rate_lines(series), begin=series["begin"], end=series["end"])


def _latency(series: metrics.Metrics) -> dict[str, object]:
    shown = view.latency_lines(series)
    return charts.lines(shown, unit="ms", begin=series["begin"], end=series["end"])


def _notices(shown: Sequence[Notice]) -> None:
    for notice in shown:
        write("p", notice.text, f"notice {notice.tone}").props["role"] = "alert"


def _tiles(shown: Sequence[Tile]) -> None:
    with ui.element("div").classes("tiles"):
        for tile in shown:
            box = ui.element("a").classes("tile")
            box.props["href"] = tile.address
            with box:
                write("span", tile.name, "small soft")
                with ui.element("span").classes("figure"):
                    write("span", tile.figure)
                quiet = tile.tone in {"idle", "busy"}
                with ui.element("span").classes(f"small {'soft' if quiet else tile.tone}"):
                    if not quiet:
                        parts.mark(tile.tone)
                    write("span", tile.about)


def _motions(shown: Sequence[Motion]) -> None:
    if not shown:
        parts.empty(
            "No rollout yet.",
            "Push a release, then roll it out in waves that advance on what it does on devices:",
            "edgeml rollout create digits:1.0.0",
        )
    for motion in shown:
        line = motion.line
        with ui.element("article").classes("panel rollout"):
            with ui.element("div").classes("title"):
                with ui.element("h3"):
                    parts.link(line.name, paths.rollout(line.id))
                parts.chip(line.status, line.tone)
                with ui.element("span").classes("counts"):
                    for name, tone, number in line.counts:
                        write("span", f"{number:,} {name}", f"small {tone}")
            rollout_parts.why(line.sentence, line.tone, line.gate)
            rollout_parts.steps(motion.steps)


def _alarms(shown: tuple[Sequence[Alarm], int, Sequence[Alarm]]) -> None:
    found, more, over = shown
    if not found:
        write("p", "No alert fires. Set when they do: edgeml alerts rules", "soft")
    with ui.element("ul").classes("rows"):
        for alarm in (*found, *over):
            with ui.element("li").classes("device"):
                with ui.element("span").classes("line"):
                    parts.chip(alarm.severity, alarm.tone)
                    write("span", alarm.since, "small soft end")
                if alarm.address:
                    parts.link(alarm.text, alarm.address)
                else:
                    write("span", alarm.text)
                if alarm.care:
                    write("span", alarm.care, "small soft")
    if more:
        write("p", f"and {more:,} more: edgeml alerts list", "small soft")


def _bars(shown: Sequence[Bar], nothing: str) -> None:
    if not shown:
        write("p", nothing, "soft")
        parts.command("edgeml fleet enroll cam-1 --label site=north")
    for bar in shown:
        with ui.element("div").classes("bar"):
            if bar.address:
                parts.link(bar.label, bar.address, "label")
            else:
                write("span", bar.label, "label")
            write("span", bar.number, "number")
            with ui.element("span").classes("track").props("aria-hidden=true"):
                for tone, share in bar.parts:
                    ui.element("i").classes(tone).style(f"width: {share:.2%}")


def _events(shown: Sequence[Event]) -> None:
    if not shown:
        write("p", "Nothing yet. All that operators and rollouts do is listed here.", "soft")
    with ui.element("ol").classes("timeline"):
        for event in shown:
            with ui.element("li").classes(event.tone):
                write("span", f"{event.time} UTC {event.who}", "small soft")
                with ui.element("span").classes("line"):
                    write("strong", event.what)
                    parts.link(event.subject, event.address)
                if event.why:
                    write("span", event.why, "small soft why")
