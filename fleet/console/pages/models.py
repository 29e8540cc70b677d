"""The models, and the line of releases of one."""

from collections.abc import Mapping, Sequence

from nicegui import ui

from fleet.console import parts, paths
from fleet.console.device_parts import Table
from fleet.console.parts import write
from fleet.console.shell import Visit, page
from fleet.console.views import releases as view
from fleet.console.views.tables import Cell, Row
from fleet.console.views.wording import plural, tone
from fleet.resources import EvidenceInfo, ModelInfo, ReleaseInfo
from fleet.services import releases, rollout_shown
from fleet.services.context import Services

EVERY_S = 3.0
_HEAD = ("Release", "Signed", "On devices", "Accuracy of the best variant", "Variants", "Rollouts")
_MODELS = (
    "Model", "Latest", "Signed", "Accuracy of its best variant", "Variants",
    "Running on devices", "Last rollout",
)  # fmt: skip
_MOST = 50


@page("/models", "Models")
async def show_models(visit: Visit) -> None:
    """Draw the list of models."""
    box = Table(_MODELS, "Models")
    nothing = parts.redraw(_none_yet)

    async def refresh() -> None:
        rows = await visit.shared("models", lambda: _models(visit), EVERY_S)
        box.show({row.name: _model_cells(row) for row in rows})
        nothing(not rows)

    await refresh()
    visit.live(refresh, EVERY_S)


def _models(visit: Visit) -> tuple[view.ModelRow, ...]:
    services, scope = visit.services, visit.scope
    found = releases.list_models(services, scope)
    newest = {}
    for one in found[:_MOST]:
        model = one["model"]
        (latest,) = releases.page(services, model=model, limit=1)["items"]
        rollouts = rollout_shown.page(services, model=model, limit=1, scope=scope)["items"]
        newest[model] = view.newest(latest, converted(services, latest["digest"]), rollouts)
    return view.models(found, newest)


def _model_cells(row: view.ModelRow) -> Row:
    running = ", ".join(f"{version} on {count:,}" for version, count, _ in row.running)
    latest = row.newest
    cells: Row = [
        Cell(row.name, row.address, note=row.releases),
        Cell(row.latest, paths.release(row.name, row.latest), note=latest.made if latest else ""),
    ]
    if latest is None:
        return [*cells, "", "", "", running or "no device", ""]
    return [
        *cells,
        Cell(latest.trust, tone=latest.trust_tone),
        latest.accuracy or "not measured",
        latest.about,
        running or "no device",
        _rollout(latest),
    ]


def _rollout(row: view.ReleaseRow) -> Cell:
    name, status, address = row.rollouts[0] if row.rollouts else ("", "none yet", "")
    return Cell(status, address, tone=tone(status) if name else "", note=name)


def _none_yet(is_empty: bool) -> None:
    if is_empty:
        parts.empty(
            "No model yet.",
            "Convert a trained model, then push the release that it becomes:",
            "edgeml releases push digits-1.0.0",
        )


@page("/models/{model}", "Model")
async def show_model(visit: Visit, model: str) -> None:
    """Draw the releases of a model, newest first."""
    visit.title(model)
    await visit.read(releases.show_model, model, visit.scope)  # where there is none, it says so
    running = parts.redraw(_running)
    chosen: list[str] = []
    shown: list[str] = []
    with ui.element("div").classes("line between"):
        write("p", "Tick two releases to see them side by side.", "soft")
        compare = parts.link("Compare", "#", "button primary")

    def tick(key: str, is_ticked: bool) -> None:
        if not key:
            chosen[:] = shown[:2] if is_ticked else []
        else:
            chosen[:] = [*(c for c in chosen if c != key), *([key] if is_ticked else [])][-2:]
        _point(compare, model, chosen)
        ui.timer(0, refresh, once=True)

    box = Table(_HEAD, f"Releases of {model}", tick)

    async def refresh() -> None:
        info, rows = await visit.shared(("model", model), lambda: _line(visit, model), EVERY_S)
        running(info)
        shown[:] = [row.version for row in rows]
        box.show({row.version: _cells(row) for row in rows}, chosen)

    _point(compare, model, chosen)
    await refresh()
    visit.live(refresh, EVERY_S)


def _point(link: ui.element, model: str, chosen: Sequence[str]) -> None:
    """Have the link lead to the comparison of what is ticked, the older one first."""
    is_ready = len(chosen) == 2  # noqa: PLR2004 -- a comparison is of two
    names = [f"{model}:{version}" for version in chosen]
    link.props["href"] = paths.to("/compare", one=names[0], other=names[1]) if is_ready else "#"
    link.props["aria-disabled"] = "false" if is_ready else "true"
    link.update()


def _line(visit: Visit, model: str) -> tuple[ModelInfo, tuple[view.ReleaseRow, ...]]:
    services, scope = visit.services, visit.scope
    info = releases.show_model(services, model, scope)
    found = releases.page(services, model=model, limit=_MOST)["items"]
    rollouts = rollout_shown.page(services, model=model, limit=200, scope=scope)["items"]
    return info, view.lineage(found, _measured(services, found), info["running"], rollouts)


def _measured(
    services: Services, found: Sequence[ReleaseInfo]
) -> Mapping[str, Sequence[EvidenceInfo]]:
    return {one["digest"]: converted(services, one["digest"]) for one in found}


def converted(services: Services, digest: str) -> list[EvidenceInfo]:
    """What the converter measured of a release."""
    found = releases.list_evidence(services, release=digest, stage="convert", limit=200)
    return found["items"]


def _running(info: ModelInfo) -> None:
    rows = view.models([info])[0].running
    with ui.element("div").classes("line"):
        if not rows:
            write("span", "No device runs it yet. Roll it out:", "soft")
            parts.command(f"edgeml rollout create {info['model']}:{info['latest']}")
        for version, count, address in rows:
            parts.link(f"{version} on {plural(count, 'device')}", address, "chip idle")


def _cells(row: view.ReleaseRow) -> Row:
    devices = plural(row.running, "device") if row.running else "none"
    return [
        Cell(row.version, row.address, note=row.made),
        Cell(row.trust, tone=row.trust_tone),
        Cell(devices, row.running_address if row.running else "", number=True),
        row.accuracy or "not measured",
        row.about,
        _rollout(row),
    ]
