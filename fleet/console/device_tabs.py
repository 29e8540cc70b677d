"""The tabs of a device's page: charts, history, evidence, data, commands, configuration."""

from collections.abc import Sequence

from nicegui import ui

from cloud_sync.commands import CommandKind
from fleet.console import parts, rollout_parts
from fleet.console.device_parts import Table, field, table
from fleet.console.parts import write
from fleet.console.shell import Visit
from fleet.console.views import charts as drawn
from fleet.console.views import commands as command_view
from fleet.console.views import device as view
from fleet.console.views import evidence as evidence_view
from fleet.console.views.device_charts import Chart, of_hours, of_windows
from fleet.console.views.tables import Cell, Row
from fleet.resources import CommandInfo
from fleet.roles import Role
from fleet.services import (
    commands,
    configuration_shown,
    device_history,
    ledger,
    metrics,
    records,
    releases,
)

EVERY_S = 2.0
_WINDOWS = 240
_RANGES = {"now": "Now", "day": "24 hours", "week": "7 days"}
_SECONDS = {"day": 86400.0, "week": 7 * 86400.0}
_LINES = 300
_NO_DRIFT = (
    "It is told from the classes of the last windows, lately against before, once there are "
    "enough results by class; look at Now. Over days, the confident share tells of it."
)


async def charts(visit: Visit, device: str) -> None:
    """Latency, rate, errors, confidence and heat over time."""
    span = visit.query("range", "now") if visit.query("range") in _RANGES else "now"
    with ui.element("div").classes("segments").props("role=group aria-label='Time range'"):
        for key, name in _RANGES.items():
            link = parts.link(name, f"?tab=charts&range={key}", "segment")
            if key == span:
                link.props["aria-current"] = "true"
    box = ui.element("div").classes("two")
    shown: dict[str, ui.echart] = {}
    known: list[tuple[str, ...]] = []

    def read() -> tuple[Chart, ...]:
        services = visit.services
        if span == "now":
            found = records.telemetry(services, device=device, limit=_WINDOWS, scope=visit.scope)
            return of_windows(found["items"])
        now = services.now()
        asked = metrics.Asked(
            begin=now - _SECONDS[span], end=now, device=device, by=("model", "release")
        )
        return of_hours(metrics.series(services, asked, visit.scope))

    async def refresh() -> None:
        found = await visit.shared(("device charts", device, span), read, EVERY_S)
        titles = [tuple(chart.title for chart in found)]
        if titles != known:
            known[:] = titles
            box.clear()
            shown.clear()
            with box:
                _charts(found, shown)
            return
        for chart in found:
            options = _options(chart)
            if shown[chart.title].options != options:
                shown[chart.title].options.clear()
                shown[chart.title].options.update(options)
                shown[chart.title].update()

    await refresh()
    visit.live(refresh, EVERY_S)


def _charts(found: Sequence[Chart], shown: dict[str, ui.echart]) -> None:
    if not found:
        parts.empty(
            "No telemetry yet.",
            "A device sends a window of it every few seconds once a model runs on a source. "
            "Give it a source:",
            "edgeml devices configuration set cam-1 settings.toml",
        )
        return
    for chart in found:
        with parts.panel(chart.title):
            write("p", chart.note, "small soft")
            shown[chart.title] = parts.plot(_options(chart), label=f"{chart.title}: {chart.note}")
    if "Drift" not in shown:
        with parts.panel("Drift"):
            write("p", _NO_DRIFT, "soft")


def _options(chart: Chart) -> dict[str, object]:
    return drawn.lines(chart.lines, unit=chart.unit, percent=chart.percent)


async def history(visit: Visit, device: str) -> None:
    """What the device said of its releases, with its reasons."""
    said = await visit.read(device_history.show, device)
    measured = await visit.read(releases.list_evidence, device=device, limit=200, scope=visit.scope)
    lines = view.history(said, measured["items"])
    if not lines:
        parts.empty(
            "It has said nothing of a release yet.",
            "Each step of an update is told with its reason. Roll a release out to it:",
            "edgeml rollout create digits:1.0.0 --selector site=north",
        )
        return
    with parts.panel(), ui.element("ol").classes("timeline"):
        for line in lines:
            with ui.element("li").classes(line.tone):
                with ui.element("span").classes("line"):
                    write("span", line.time, "small soft")
                    if line.rollout:
                        parts.link(line.rollout, line.address, "small")
                write("strong", line.what)
                if line.reason or line.gate:
                    rollout_parts.why(line.reason, line.tone, line.gate)


async def evidence(visit: Visit, device: str) -> None:
    """What it measured and signed."""
    found = await visit.read(releases.list_evidence, device=device, limit=50, scope=visit.scope)
    known = await visit.read(releases.page, limit=1000)
    names = {one["digest"]: f"{one['model']}:{one['version']}" for one in known["items"]}
    cards = evidence_view.evidence(found["items"], names)
    if not cards:
        parts.empty(
            "No evidence yet.",
            "Before a release goes live the device replays the golden set and watches a trial; "
            "both are signed by its key. Roll a release out to it:",
            "edgeml rollout create digits:1.0.0",
        )
    for card in cards:
        with parts.panel(card.title):
            write("p", f"{card.about}, {card.time}", "small soft")
            parts.facts(card.facts)
            if card.gates:
                rows: dict[str, Row] = {
                    gate.name: [gate.name, Cell(gate.result, tone=gate.tone), gate.reason]
                    for gate in card.gates
                }
                table(("Gate", "Verdict", "Why"), rows, f"Gates of {card.title}")


async def data(visit: Visit, device: str) -> None:
    """The ledger of bytes."""
    rows, sentence = view.ledger(await visit.read(ledger.show, device))
    if not rows:
        parts.empty(
            "It has told of no traffic yet.",
            "A device counts every byte of its connections, by month, rollout and cause.",
            f"edgeml devices ledger {device}",
        )
        return
    write("p", sentence)
    table(
        ("Month", "Rollout", "Cause", "Received", "Sent", "Note"),
        {
            row["key"]: [
                row["month"],
                Cell(row["rollout"], row["address"]),
                row["cause"],
                Cell(row["received"], number=True),
                Cell(row["sent"], number=True),
                row["note"],
            ]
            for row in rows
        },
        "Ledger of bytes",
    )


async def configuration(visit: Visit, device: str) -> None:
    """Each setting, and the layer that it comes from."""
    found = await visit.read(configuration_shown.show, device)
    rows, sentence, tone = view.settings(found)
    parts.sentence(sentence, tone)
    for conflict in found["conflicts"]:
        layers = " and ".join(conflict["layers"])
        write("p", f"{conflict['key']}: {layers} disagree, so none of them counts.", "warn")
    table(
        ("Setting", "Value", "From"),
        {row["key"]: [row["key"], row["value"], row["origin"]] for row in rows},
        "Settings and where they come from",
    )
    write("p", "Change what is its own:", "soft")
    parts.command(f"edgeml devices configuration set {device} settings.toml")


async def told(visit: Visit, device: str) -> None:
    """Commands with their status, the last snapshot, and the last lines of the log."""
    if visit.may(Role.OPERATOR):
        _buttons(visit, device)
    brought = ui.element("div").classes("two")
    list_of = Table(("Command", "Status", "When", "Why"), "Commands")
    nothing = ui.element("div")
    known: list[str] = []

    def read() -> tuple[list[CommandInfo], CommandInfo | None, CommandInfo | None]:
        found = commands.list_commands(visit.services, device)
        whole = [
            commands.show(visit.services, device, newest["id"]) if newest else None
            for newest in (
                command_view.newest(found, kind)
                for kind in (CommandKind.SNAPSHOT, CommandKind.LOG_TAIL)
            )
        ]
        return found, whole[0], whole[1]

    async def refresh() -> None:
        found, snapshot, log = await visit.shared(("device commands", device), read)
        lines = command_view.commands(found)
        rows: dict[str, Row] = {
            o.id: [o.kind, Cell(o.status, tone=o.tone), o.about, o.reason] for o in lines
        }
        list_of.show(rows)
        ids = [one["id"] if one else "" for one in (snapshot, log)] + [str(bool(found))]
        if ids != known:
            known[:] = ids
            brought.clear()
            nothing.clear()
            if visit.may(Role.OPERATOR):  # what commands bring is not for viewers, as in the API
                with brought:
                    _brought(snapshot, log)
            if not found:
                with nothing:
                    parts.empty(
                        "Nothing was asked of it yet.",
                        "A command is signed, expires, and is done once. From a terminal:",
                        f"edgeml devices command snapshot {device}",
                    )

    await refresh()
    visit.live(refresh)


def _buttons(visit: Visit, device: str) -> None:
    asked = {"source": "", "lines": str(_LINES)}

    async def ask(kind: CommandKind) -> None:
        number = int(asked["lines"]) if asked["lines"].isdecimal() else _LINES
        found = await visit.act(
            Role.OPERATOR, "", commands.create, device, kind, source=asked["source"], lines=number
        )
        if found is not None:
            parts.said(f"{kind} was asked of {device}.")

    with ui.element("div").classes("controls"):
        parts.button("Take a snapshot", lambda: ask(CommandKind.SNAPSHOT), "primary")
        parts.button("Fetch the log", lambda: ask(CommandKind.LOG_TAIL))
        parts.button("Run diagnostics", lambda: ask(CommandKind.DIAGNOSTICS))
        field("Source", "", lambda text: asked.update(source=text), hint="the first")
        field("Lines of the log", str(_LINES), lambda text: asked.update(lines=text), kind="number")


def _brought(snapshot: CommandInfo | None, log: CommandInfo | None) -> None:
    if snapshot is not None:
        with parts.panel("Last snapshot"):
            source = command_view.image(snapshot)
            if source:
                image = ui.element("img").classes("snapshot")
                image.props["src"] = source
                image.props["alt"] = f"What {snapshot['device']} saw"
            else:
                write(
                    "pre", command_view.text(snapshot)[:4000] or "It cannot be shown here.", "log"
                )
            write("p", command_view.commands([snapshot])[0].about, "small soft")
    if log is not None:
        with parts.panel("Log"):
            shown = write("pre", command_view.text(log), "log")
            shown.props["tabindex"] = "0"
            shown.props["aria-label"] = "The last lines of the log"
            write("p", command_view.commands([log])[0].about, "small soft")
