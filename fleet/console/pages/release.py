"""A release: who signed it, its variants with their figures, what it was made of, its report."""

from nicegui import ui

from edgeml.errors import EdgemlError
from fleet.console import parts, paths
from fleet.console.device_parts import table
from fleet.console.pages.models import converted
from fleet.console.parts import write
from fleet.console.shell import Visit, page
from fleet.console.views import releases as view
from fleet.console.views.tables import Cell, Row
from fleet.console.views.wording import clock, size
from fleet.resources import ReleaseInfo
from fleet.roles import Role
from fleet.services import blocks, release_documents, releases, rollout_shown, signatures

_VARIANTS = ("Variant", "Size", "Accuracy", "Latency", "Memory", "Checked", "Needs")
_MAX_REPORT = 2 << 20


@page("/releases/{model}/{version}", "Release")
async def show(visit: Visit, model: str, version: str) -> None:
    """Draw it."""
    visit.title(f"{model}:{version}")
    info = await visit.read(releases.show, model, version)
    _head(visit, info)
    rows = view.variants(info, await visit.read(converted, info["digest"]))
    with parts.panel("Variants"):
        table(_VARIANTS, {row.key: _variant(row) for row in rows}, "Variants")
        if all(row.figures.accuracy is None for row in rows):
            write("p", "No accuracy: it was pushed without the converter's evidence.", "soft small")
    with ui.element("div").classes("two"):
        await _signed(visit, model, version)
        await _lineage(visit, info)
    await _field(visit, info)
    await _report(visit, model, version)


def _head(visit: Visit, info: ReleaseInfo) -> None:
    with ui.element("div").classes("line between"):
        with ui.element("div").classes("line"):
            parts.chip(info["trust"], view.trust_tone(info["trust"]))
            write("span", f"{size(info['bytes'])} in all")
            write("span", f"registered {clock(info['created_at'])} by {info['created_by']}", "soft")
        with ui.element("div").classes("buttons"):
            parts.link(f"All of {info['model']}", paths.model(info["model"]), "button plain")
            devices = paths.to("/devices", model=info["model"], version=info["version"])
            parts.link("Devices that run it", devices, "button plain")
            if visit.may(Role.OPERATOR):
                begin = paths.to("/rollouts/new", model=info["model"], version=info["version"])
                parts.link("Roll it out…", begin, "button primary")
    write("code", info["digest"], "digest")


def _variant(row: view.VariantRow) -> Row:
    return [
        Cell(f"{row.target} {row.precision}", note=row.place),
        Cell(row.size, number=True),
        row.accuracy,
        Cell(row.latency, note=row.figures.runtime),
        Cell(row.memory, number=True),
        row.checked,
        row.needs,
    ]


async def _signed(visit: Visit, model: str, version: str) -> None:
    shown = view.signature(await visit.read(signatures.show, model, version))
    with parts.panel("Signature"):
        parts.sentence(shown.sentence, shown.tone)
        parts.facts(shown.facts)
        if shown.command:
            parts.command(shown.command)


async def _lineage(visit: Visit, info: ReleaseInfo) -> None:
    model, version = info["model"], info["version"]
    origin = view.origin(await visit.read(release_documents.inputs, model, version))
    line = (await visit.read(releases.page, model=model, limit=200))["items"]
    before = next((one for one in line if one["created_at"] < info["created_at"]), None)
    with parts.panel("Lineage"):
        parts.facts(origin)
        if not origin:
            write("p", "No recipe came with it: nobody wrote down what it was made of.", "soft")
        if before is None:
            write("p", f"It is the first release of {model}.", "soft")
            return
        with ui.element("p").classes("line"):
            write("span", "After", "soft")
            parts.link(f"{model}:{before['version']}", paths.release(model, before["version"]))
            names = {"one": f"{model}:{before['version']}", "other": f"{model}:{version}"}
            parts.link("Compare the two", paths.to("/compare", **names))


async def _field(visit: Visit, info: ReleaseInfo) -> None:
    """What devices proved, where it is blocked, and its rollouts."""
    model, version, digest = info["model"], info["version"], info["digest"]
    read = releases.list_evidence
    measured = await visit.read(read, release=digest, limit=1000, scope=visit.scope)
    proof = view.proof(measured["items"])
    found = await visit.read(rollout_shown.page, model=model, limit=200, scope=visit.scope)
    mine = [one for one in found["items"] if one["release"] == digest]
    known = await visit.read(blocks.list_blocks, visit.scope)
    blocked = [one for one in known if one["release"] == digest]
    with parts.panel("On devices"):
        for one in blocked:
            text = f"Blocked on {one['hardware_class'] or 'all hardware'}: {one['reason']}"
            write("p", text, "notice bad")
        with ui.element("p").classes("line"):
            for text, tone, count in proof:
                parts.chip(f"{text}, {count}", tone)
            if not proof:
                write("span", "No device has proved it yet.", "soft")
        rows: dict[str, Row] = {
            one["id"]: [Cell(one["id"], paths.rollout(one["id"])), one["status"], one["sentence"]]
            for one in mine
        }
        if rows:
            table(("Rollout", "Status", "Why"), rows, f"Rollouts of {model}:{version}")
        else:
            parts.empty(
                "It was never rolled out.",
                "A rollout goes in waves and advances on what the release does on devices:",
                f"edgeml rollout create {model}:{version}",
            )


async def _report(visit: Visit, model: str, version: str) -> None:
    """The converter's report, in a frame in which nothing runs and which reaches nothing."""
    try:
        report = await visit.read(release_documents.report, model, version)
    except EdgemlError as error:
        with parts.panel("Report of the converter"):
            parts.empty(error.what, error.why, "edgeml releases push FOLDER")
        return
    with parts.panel("Report of the converter"):
        if len(report) > _MAX_REPORT:
            write("p", f"It has {size(len(report))}: too much for this page.", "soft")
            return
        frame = ui.element("iframe").classes("report")
        frame.props["sandbox"] = ""
        frame.props["srcdoc"] = report
        frame.props["title"] = f"Report of the converter for {model}:{version}"
        frame.props["loading"] = "lazy"
