"""Draws the parts of the overview with NiceGUI; what they say is decided in `view`.

Text from devices and operators goes through `write` only, which escapes it, or into attributes.
"""

from html import escape

from nicegui import ui

from fleet.console.view import (
    Cell,
    DeviceRow,
    Event,
    GateGroup,
    GateLine,
    ReleaseRow,
    RolloutCard,
    Step,
    Summary,
    plural,
)

MAX_NAMED_CELLS = 60
MAX_CELLS = 2000
_MARKS = {"good": "✓", "bad": "✕", "warn": "!", "busy": "…", "idle": "·"}

_LEGEND = {
    "value": "value",
    "interval": "95 % interval",
    "bound": "limit",
    "allowed": "passes",
    "baseline": "release before",
}


class Folds:
    """Which rollouts this page's reader has opened or closed: kept when they are drawn again."""

    def __init__(self) -> None:
        self._open: dict[str, bool] = {}

    def is_open(self, card: RolloutCard) -> bool:
        """Whether a rollout is shown whole."""
        return self._open.get(card.id, card.is_open)

    def keep(self, card: RolloutCard, is_open: bool) -> None:
        """Remember what the reader did; a browser tells of what was drawn open, too."""
        if is_open == card.is_open:
            self._open.pop(card.id, None)
        else:
            self._open[card.id] = is_open


def write(tag: str, text: str, classes: str = "") -> ui.html:
    """An element with text in it."""
    return ui.html(escape(text), sanitize=False, tag=tag).classes(classes)


def summary(shown: Summary) -> None:
    """The fleet's health in a line, and what an operator has to know."""
    for notice in shown.notices:
        write("p", notice.text, f"notice {notice.tone}").props["role"] = "alert"
    with ui.element("p").classes("health"):
        with ui.element("span").classes(f"headline {shown.tone}"):
            if shown.tone != "idle":
                _mark(shown.tone)
            write("span", shown.devices)
        for fact in shown.facts:
            write("span", fact, "fact")


def rollouts(cards: tuple[RolloutCard, ...], folds: Folds) -> None:
    """The rollouts, newest first."""
    if not cards:
        _empty(
            "No rollout yet.",
            "Push a release, then roll it out in waves that advance on what it does on devices:",
            "edgeml rollout create digits:1.0.0",
        )
    for card in cards:
        _rollout(card, folds)


def _rollout(card: RolloutCard, folds: Folds) -> None:
    details = ui.element("details").classes("panel rollout").mark(card.id)
    details.props["open"] = folds.is_open(card)
    details.props["id"] = f"rollout-{card.id}"
    details.on(
        "toggle",
        lambda event: folds.keep(card, bool(event.args)),
        js_handler="(event) => emit(event.target.open)",
    )
    with details:
        with ui.element("summary"):
            with ui.element("span").classes("title"):
                write("h3", card.title)
                write("span", card.status, f"chip {card.tone}")
                _counts(card)
            write("span", card.sentence, f"sentence {card.tone}").props["data-testid"] = "sentence"
        _steps(card.steps)
        _cells(card.cells)
        for group in card.groups:
            _gates(group)
        if any(gate.plot for group in card.groups for gate in group.gates):
            _legend()
        write("p", card.about, "soft small")


def _counts(card: RolloutCard) -> None:
    with ui.element("span").classes("counts"):
        for name, tone, number in card.counts:
            write("span", f"{number:,} {name}", f"small {tone}")


def _steps(steps: tuple[Step, ...]) -> None:
    with ui.element("ol").classes("steps") as row:
        row.props["aria-label"] = "Waves"
        for number, step in enumerate(steps, 1):
            with ui.element("li").classes(f"step {step.state}"):
                write("span", f"Wave {number}", "small soft")
                write("span", step.label, "label")
                write("span", f" ({step.state})", "hidden")


def _cells(cells: tuple[Cell, ...]) -> None:
    """Devices as cells: named while there is room, then squares, then only the counts.

    All of them are one element to NiceGUI, since a thousand would hold the page up.
    """
    if len(cells) > MAX_CELLS:
        return
    hidden = "" if len(cells) <= MAX_NAMED_CELLS else ' class="hidden"'
    items = [
        f'<li class="cell {cell.tone}" title="{escape(f"{cell.name}: {cell.text}")}">'
        f'<span class="mark" aria-hidden="true">{_MARKS[cell.tone]}</span>'
        f"<span{hidden}>{escape(cell.name)}</span>"
        f'<span class="hidden">: {escape(cell.text)}</span></li>'
        for cell in cells
    ]
    row = ui.html("".join(items), sanitize=False, tag="ul")
    row.classes("cells dense" if hidden else "cells").props["aria-label"] = "Devices"


def _gates(group: GateGroup) -> None:
    with ui.element("div").classes("gates"):
        write("h4", group.title)
        for gate in group.gates:
            with ui.element("div").classes("gate").mark(gate.name) as row:
                row.props["title"] = gate.name
                with ui.element("span").classes(f"verdict {gate.tone}"):
                    _mark(gate.tone)
                    write("span", gate.result, "small")
                write("span", gate.label, "label")
                _plot(gate)
                write("span", gate.numbers, "numbers")
                write("span", gate.reason, "reason soft small")


def _plot(gate: GateLine) -> None:
    box = ui.element("span").classes(f"plot {gate.tone}")
    box.props["aria-hidden"] = "true"  # the numbers and the reason beside it say the same
    plot = gate.plot
    if plot is None:
        return
    with box:
        start, end = plot.allowed
        _span("allowed", start, end)
        if plot.interval is not None:
            _span("interval", *plot.interval)
        if plot.baseline is not None:
            _at("baseline", plot.baseline)
        _at("bound", plot.bound)
        _at("value", plot.value)


def _legend() -> None:
    with ui.element("p").classes("legend small soft").props("aria-hidden=true"):
        for kind, text in _LEGEND.items():
            with ui.element("span"):
                with ui.element("span").classes("plot key"):
                    ui.element("i").classes(kind)
                write("span", text)


def _span(kind: str, start: float, end: float) -> None:
    ui.element("i").classes(kind).style(f"left: {start}%; width: {max(end - start, 0):.2f}%")


def _at(kind: str, place: float) -> None:
    ui.element("i").classes(kind).style(f"left: {place}%")


def devices(rows: tuple[DeviceRow, ...], more: int, unread: int) -> None:
    """The devices; of those that were read, the ones that want attention first."""
    write("h2", "Devices")
    if not rows:
        _empty(
            "No device yet.",
            "Get a one-time token for one, and enrol it with that:",
            "edgeml fleet enroll cam-1 --label site=north",
        )
        return
    with ui.element("ul").classes("rows"):
        for row in rows:
            with ui.element("li").classes("device"):
                with ui.element("span").classes("line"):
                    write("span", "", f"dot {'good' if row.online else 'off'}")
                    write("strong", row.name)
                    write("span", "online" if row.online else "offline", "hidden")
                    write("span", row.runs, "end")
                if row.update:
                    write("span", row.update, f"small {row.tone}")
                if row.trouble:
                    write("span", row.trouble, "small warn")
                about = (row.seen, row.hardware_class, row.labels)
                write("span", " · ".join(filter(None, about)), "small soft")
    if more:
        write("p", f"and {plural(more, 'device')} more: edgeml devices list", "small soft")
    if unread:
        text = (
            f"{plural(unread, 'device')}, the last by name, are not looked at here: neither for "
            "what wants attention nor for what releases run."
        )
        write("p", text, "small warn")


def releases(rows: tuple[ReleaseRow, ...]) -> None:
    """The latest releases and where they run."""
    write("h2", "Releases")
    if not rows:
        _empty(
            "No release yet.",
            "Convert a model, then push the folder that came out:",
            "edgeml releases push build/digits-1.0.0",
        )
        return
    with ui.element("ul").classes("rows"):
        for row in rows:
            with ui.element("li").classes("line"):
                write("strong", row.name)
                write("span", row.about, "small soft")
                runs = f"on {plural(row.running, 'device')}" if row.running else "runs nowhere"
                write("span", runs, "small end" if row.running else "small soft end")


def events(entries: tuple[Event, ...]) -> None:
    """What happened, newest first."""
    with ui.element("div").classes("line"):
        write("h2", "What happened")
        write("span", "UTC", "small soft end")
    if not entries:
        write("p", "Nothing yet. All that operators and rollouts do is listed here.", "soft")
        return
    with ui.element("ol").classes("timeline"):
        for event in entries:
            with ui.element("li").classes(event.tone):
                write("span", f"{event.day} {event.time} {event.who}".strip(), "small soft")
                write("strong", event.what)
                if event.why:
                    write("span", event.why, "small soft why")


def _mark(tone: str) -> None:
    """A sign beside the colour, for those who cannot tell the colours apart."""
    write("span", _MARKS[tone], "mark").props["aria-hidden"] = "true"


def _empty(what: str, how: str, command: str) -> None:
    with ui.element("div").classes("panel empty"):
        write("strong", what)
        write("p", how, "soft")
        write("code", command)
