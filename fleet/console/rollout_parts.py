"""Draws a rollout: its sentence, waves, devices as cells, gates with their small plots."""

import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from nicegui import ui

from fleet.console import paths
from fleet.console.parts import MARKS, link, mark, sentence, write
from fleet.console.views.rollout import Cell, GateGroup, GateLine, RolloutCard, Step
from fleet.console.views.wording import plural
from fleet.resources import RolloutDevice

MAX_NAMED_CELLS = 60
MAX_CELLS = 500
_MAX_NAMED = 6
_MAX_REASONS = 8
_CODES = {"committed": "g", "failed": "b", "refused": "w", "restored": "w", "unfit": "w",
          "updating": "u", "waiting": "i"}  # fmt: skip
_WORDS = {"g": "committed", "b": "failed", "w": "refused, restored or unfit", "u": "on its way",
          "i": "waiting"}  # fmt: skip
_SCRIPT = (Path(__file__).parent / "cells.js").read_text()

_LEGEND = {
    "value": "value",
    "interval": "95 % interval",
    "bound": "limit",
    "allowed": "passes",
    "baseline": "release before",
}


def counts(card: RolloutCard) -> None:
    """How many devices stand how."""
    with ui.element("span").classes("counts"):
        for name, tone, number in card.counts:
            write("span", f"{number:,} {name}", f"small {tone}")


def steps(steps: tuple[Step, ...]) -> None:
    """The waves in a row."""
    with ui.element("ol").classes("steps") as row:
        row.props["aria-label"] = "Waves"
        for number, step in enumerate(steps, 1):
            with ui.element("li").classes(f"step {step.state}"):
                write("span", f"Wave {number}", "small soft")
                write("span", step.label, "label")
                write("span", f" ({step.state})", "hidden")


def cells(cells: tuple[Cell, ...]) -> None:
    """Devices as cells: named while there is room, then squares; more are for a `Field`.

    All of them are one element to NiceGUI, since a thousand would hold the page up.
    """
    if len(cells) > MAX_CELLS:
        return
    hidden = "" if len(cells) <= MAX_NAMED_CELLS else ' class="hidden"'
    items = [
        f'<li class="cell {cell.tone}" title="{escape(f"{cell.name}: {cell.text}")}">'
        f'<span class="mark" aria-hidden="true">{MARKS[cell.tone]}</span>'
        f"<span{hidden}>{escape(cell.name)}</span>"
        f'<span class="hidden">: {escape(cell.text)}</span></li>'
        for cell in cells
    ]
    row = ui.html("".join(items), sanitize=False, tag="ul")
    row.classes("cells dense" if hidden else "cells").props["aria-label"] = "Devices"


class Field:
    """Thousands of devices as the cells of one canvas; a change sends one letter a device."""

    def __init__(self) -> None:
        ui.add_head_html(f"<script>{_SCRIPT}</script>")
        self._place = ui.element("div").classes("field-of-cells")
        self._names: tuple[str, ...] = ()
        self._codes = ""
        with self._place:
            self._canvas = ui.element("canvas").classes("canvas")
            self._canvas.props["role"] = "img"
            self._canvas.props["data-base"] = paths.to("/devices/")

    def show(self, devices: Sequence[RolloutDevice]) -> None:
        """Draw them, those of a hardware class side by side."""
        ordered = sorted(devices, key=lambda d: (d["hardware_class"], d["device"]))
        names = tuple(device["device"] for device in ordered)
        codes = "".join(_CODES.get(device["outcome"], "u") for device in ordered)
        is_many = len(names) > MAX_CELLS
        self._place.set_visibility(is_many)
        if not is_many or (names, codes) == (self._names, self._codes):
            return
        told = json.dumps(names) if names != self._names else "null"
        self._names, self._codes = names, codes
        self._canvas.props["aria-label"] = ", ".join(
            f"{codes.count(code):,} {word}" for code, word in _WORDS.items() if code in codes
        )
        self._canvas.update()
        ui.run_javascript(
            f"showCells({json.dumps(self._canvas.html_id)}, {json.dumps(codes)}, {told}, "
            f"{json.dumps(_WORDS)})"
        )


def attention(cells: tuple[Cell, ...]) -> None:
    """Why devices want to be looked at, and which: what failed first, then what most share."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.tone in {"bad", "warn"}:
            reasons.setdefault((cell.tone, cell.text), []).append(cell.name)
    ordered = sorted(reasons.items(), key=lambda one: (one[0][0], -len(one[1])))
    with ui.element("ul").classes("rows"):
        for (tone, text), names in ordered[:_MAX_REASONS]:
            with ui.element("li"):
                write("p", f"{plural(len(names), 'device')}: {text}", f"small {tone}")
                with ui.element("p").classes("line small"):
                    for name in names[:_MAX_NAMED]:
                        link(name, paths.device(name))
                    if len(names) > _MAX_NAMED:
                        write("span", f"and {len(names) - _MAX_NAMED:,} more", "soft")
    if len(ordered) > _MAX_REASONS:
        write("p", f"and {len(ordered) - _MAX_REASONS:,} other reasons", "small soft")


def gates(group: GateGroup, beside: Callable[[GateLine], None] | None = None) -> None:
    """The gates of a hardware class; `beside` adds to each what can be done about it."""
    with ui.element("div").classes("gates"):
        write("h4", group.title)
        for gate in group.gates:
            with ui.element("div").classes("gate").mark(gate.name) as row:
                row.props["title"] = gate.name
                with ui.element("span").classes(f"verdict {gate.tone}"):
                    mark(gate.tone)
                    write("span", gate.result, "small")
                write("span", gate.label, "label")
                _plot(gate)
                write("span", gate.numbers, "numbers")
                write("span", f"{gate.reason}{gate.needed}", "reason soft small")
                if beside is not None:
                    beside(gate)


def why(text: str, tone: str, gate: GateLine | None, classes: str = "") -> ui.element:
    """The sentence that says why, and the gate that tells most: its plot and numbers."""
    shown = sentence(text or (gate.reason if gate else ""), tone).classes(classes)
    if gate is not None and gate.plot is not None:
        with ui.element("div").classes("telling") as row:
            row.props["title"] = f"{gate.result}: {gate.reason}"
            with ui.element("span").classes(f"verdict small {gate.tone}"):
                mark(gate.tone)
                write("span", gate.label)
            _plot(gate)
            write("span", gate.numbers, "numbers")
    return shown


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


def legend() -> None:
    """What the marks of a gate's plot mean."""
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
