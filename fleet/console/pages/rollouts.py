"""The rollouts, newest first: where each stands, and why."""

from functools import partial

from nicegui import ui

from fleet.console import parts, paths, rollout_parts
from fleet.console.block_parts import Blocks
from fleet.console.shell import Visit, page
from fleet.console.views.rollout_list import RolloutLine, rollout_line
from fleet.resources import Page, RolloutInfo
from fleet.roles import Role
from fleet.services import rollouts

_ON_A_PAGE = 20
_EVERY_S = 2.0
_Shown = tuple[str, tuple[RolloutLine, ...]]


@page("/rollouts", "Rollouts")
async def show(visit: Visit) -> None:
    """Draw the list; `?model=` narrows it."""
    model = visit.query("model")
    after = ""

    def search(value: str) -> None:
        nonlocal model
        model = value.strip()
        visit.remember(model=model)
        ui.timer(0, anew, once=True)

    with ui.element("div").classes("line"):
        field = ui.input("Model", value=model).props("outlined dense clearable data-filter")
        field.on_value_change(lambda event: search(event.value or ""))
        if visit.may(Role.OPERATOR):
            parts.link("New rollout", paths.to("/rollouts/new", model=model), "button primary end")
    place = parts.redraw(_draw, "stack")

    async def load(cursor: str) -> str | None:
        nonlocal after
        after = cursor
        read = partial(
            rollouts.page,
            visit.services,
            model=model,
            after=after,
            limit=_ON_A_PAGE,
            scope=visit.scope,
        )
        found: Page[RolloutInfo] = await visit.shared(("rollouts", model, after), read, _EVERY_S)
        place((model, tuple(map(rollout_line, found["items"]))))
        return found["next"]

    async def refresh() -> None:
        await load(after)

    await refresh()
    anew = parts.pager(load)
    visit.live(refresh, _EVERY_S)
    await Blocks(visit).refresh()


def _draw(shown: _Shown) -> None:
    model, lines = shown
    if not lines:
        _empty(model)
    for line in lines:
        with ui.element("article").classes("panel rollout"):
            with ui.element("div").classes("line"):
                with ui.element("h2"):
                    parts.link(line.name, paths.rollout(line.id), "strong")
                parts.chip(line.status, line.tone)
                parts.write("span", line.wave, "small soft")
                with ui.element("span").classes("counts"):
                    for name, tone, number in line.counts:
                        parts.write("span", f"{number:,} {name}", f"small {tone}")
            rollout_parts.why(line.sentence, line.tone, line.gate)
            parts.write("p", line.about, "small soft")


def _empty(model: str) -> None:
    if model:
        parts.empty(
            f"No rollout of {model}.", "Its releases are given to devices with:", _create(model)
        )
    else:
        parts.empty(
            "No rollout yet.",
            "A rollout gives a release to devices in waves. Each wave advances on what the release "
            "does on devices, and stops by itself when that is bad.",
            _create("digits"),
        )


def _create(model: str) -> str:
    return f"edgeml rollout create {model}:1.0.0"
