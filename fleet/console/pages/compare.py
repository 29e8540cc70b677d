"""Two releases side by side."""

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from edgeml.errors import UserError
from fleet.console import parts, paths
from fleet.console.device_parts import table
from fleet.console.pages.models import converted
from fleet.console.parts import write
from fleet.console.shell import Visit, page
from fleet.console.views import compare as view
from fleet.console.views import releases as release_view
from fleet.console.views.tables import Cell, Row
from fleet.resources import ReleaseInfo
from fleet.services import metrics, release_documents, releases
from fleet.services.metrics import MetricPoint

_DAY_S = 86400.0


@page("/compare", "Compare releases")
async def show(visit: Visit) -> None:
    """Draw the comparison that the address asks for, or the choice of two."""
    known = (await visit.read(releases.page, limit=500))["items"]
    if not known:
        parts.empty(
            "No release yet.", "Two are compared; push them:", "edgeml releases push digits-1.0.0"
        )
        return
    names = [f"{one['model']}:{one['version']}" for one in known]
    one, other = visit.query("one"), visit.query("other")
    _choose(names, one, other)
    if not one or not other:
        write("p", "Choose two releases.", "soft")
        return
    found = {name: info for name, info in zip(names, known, strict=True) if name in {one, other}}
    for name in (one, other):
        if name not in found:
            raise UserError(f"There is no release {name[:128]!r}.", fix="Choose one of the list.")
    visit.title(f"{one} and {other}")
    await _compare(visit, found[one], found[other], (one, other))


def _choose(names: list[str], one: str, other: str) -> None:
    options = {"": "choose", **{name: name for name in names}}

    def go(**changed: str) -> None:
        address = paths.to("/compare", **{"one": one, "other": other, **changed})
        ui.navigate.to(address.removeprefix(paths.PATH))  # which NiceGUI puts before it

    with ui.element("div").classes("controls"):
        parts.choice("First", options, one, lambda value: go(one=value))
        parts.choice("Second", options, other, lambda value: go(other=value))
        parts.link("Swap", paths.to("/compare", one=other, other=one), "button plain")


async def _compare(
    visit: Visit, one: ReleaseInfo, other: ReleaseInfo, names: tuple[str, str]
) -> None:
    rows = [
        release_view.variants(info, await visit.read(converted, info["digest"]))
        for info in (one, other)
    ]
    made: list[Mapping[str, Any]] = [
        await visit.read(release_documents.inputs, info["model"], info["version"])
        for info in (one, other)
    ]
    live = [await _live(visit, info) for info in (one, other)]
    pairs = (*view.variants(rows[0], rows[1]), view.field(*live), view.made_of(made[0], made[1]))
    with ui.element("div").classes("line"):
        for info, name in zip((one, other), names, strict=True):
            parts.link(name, paths.release(info["model"], info["version"]))
            parts.chip(info["trust"], release_view.trust_tone(info["trust"]))
    for pair in pairs:
        with parts.panel(pair.title):
            if pair.lines:
                shown = {line.name: _cells(line) for line in pair.lines}
                table(("Figure", *names, "Difference"), shown, pair.title)
            if pair.note:
                write("p", pair.note, "small soft")


def _cells(line: view.Line) -> Row:
    difference = Cell(line.difference, tone="" if line.tone == "idle" else line.tone)
    return [line.name, line.one, line.other, difference]


async def _live(visit: Visit, info: ReleaseInfo) -> MetricPoint | None:
    now = visit.services.now()
    asked = metrics.Asked(
        begin=now - _DAY_S, end=now, model=info["model"], release=info["digest"], by=("release",)
    )
    found = await visit.read(metrics.series, asked, visit.scope)
    return found["series"][0]["total"] if found["series"] else None
