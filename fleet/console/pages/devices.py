"""The devices: found by labels, state, hardware and release; labelled and restarted together."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from cloud_sync.commands import CommandKind
from edgeml.errors import EdgemlError
from fleet.console import parts, paths
from fleet.console.device_parts import Table, field, in_batches
from fleet.console.label_dialog import change_labels
from fleet.console.parts import write
from fleet.console.shell import Visit, page
from fleet.console.views import devices as view
from fleet.console.views.tables import Cell
from fleet.console.views.wording import plural
from fleet.roles import Role
from fleet.services import commands, device_search, devices
from fleet.services.context import Caller, Services

PAGE = 100
EVERY_S = 2.0
_HEAD = ("Device", "State", "Runs", "Update", "Hardware class", "Labels", "Last seen")
_STATES = {"": "any", **{state: state for state in device_search.STATES}}
_PHASES = {
    "": "any", "committed": "committed", "downloading": "downloading", "testing": "testing",
    "trial": "trial", "rolled_back": "rolled back", "refused": "refused",
}  # fmt: skip
_GRAMMAR = "site=north, line in (1,2), !spare, firmware>3"


@page("/devices", "Devices")
async def show(visit: Visit) -> None:
    """Draw the list."""
    await _List(visit).draw()


class _List:
    """What one open page looks for, shows and has chosen."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._wanted = view.wanted_of({name: visit.query(name) for name in view.FILTERS})
        self._after = visit.query("after")
        self._before: list[str] = []
        self._next: str | None = None
        self._shown: list[str] = []
        self._chosen: set[str] = set()
        self._found = self._total = 0

    async def draw(self) -> None:
        visit = self._visit
        classes = await visit.read(device_search.hardware_classes, visit.scope)
        self._filters(classes)
        self._fault = ui.element("div")
        with ui.element("div").classes("line between"):
            self._count = write("p", "", "headline-count")
            self._count.props["role"] = "status"
            self._actions = ui.element("div").classes("buttons")
        self._work = ui.element("div")
        self._empty = ui.element("div")
        self._table = Table(_HEAD, "Devices", self._tick if visit.may(Role.OPERATOR) else None)
        with ui.element("nav").classes("pager").props("aria-label='Pages of the list'"):
            self._back = parts.button("Previous", self._turn_back)
            self._on = parts.button("Next", self._turn_on)
        await self.refresh()
        self._draw_actions()
        visit.live(self.refresh, EVERY_S)

    def _filters(self, classes: Sequence[str]) -> None:
        wanted = self._wanted
        with ui.element("div").classes("controls").props("role=search aria-label='Find devices'"):
            parts.filter_field(
                "Label selector", wanted.selector, self._look_for("selector"), _GRAMMAR
            )
            field("Name contains", wanted.name, self._look_for("name"), hint="cam-")
            parts.choice("State", _STATES, wanted.state, self._look_for("state"))
            known = {"": "any", **{name: name for name in classes}}
            parts.choice("Hardware", known, wanted.hardware_class, self._look_for("hardware_class"))
            field("Model", wanted.model, self._look_for("model"), hint="digits")
            field("Version it runs", wanted.version, self._look_for("version"), hint="1.2.0")
            parts.choice("Update", _PHASES, wanted.phase, self._look_for("phase"))
            parts.link("Clear", paths.to("/devices"), "button plain")

    def _look_for(self, name: str) -> Callable[[str], Any]:
        async def change(value: str) -> None:
            self._wanted = dataclasses.replace(self._wanted, **{name: value.strip()})
            self._chosen.clear()
            await self._go("", [])

        return change

    async def _go(self, after: str, before: list[str]) -> None:
        self._after, self._before = after, before
        self._visit.remember(**view.query_of(self._wanted), after=after)
        await self.refresh()
        self._draw_actions()

    async def _turn_on(self) -> None:
        if self._next:
            await self._go(self._next, [*self._before, self._after])

    async def _turn_back(self) -> None:
        await self._go(self._before[-1] if self._before else "", self._before[:-1])

    async def refresh(self) -> None:
        """Read the page again; what is wrong with the filter is said beside it."""
        visit, wanted, after = self._visit, self._wanted, self._after

        def read() -> tuple[list[view.DeviceRow], str | None, int, int]:
            services, scope = visit.services, visit.scope
            found = device_search.find(services, wanted, after=after, limit=PAGE, scope=scope)
            rows = [view.row(info, services.now()) for info in found["items"]]
            number = device_search.count(services, wanted, scope)
            return rows, found["next"], number, devices.count(services, scope)[0]

        self._fault.clear()
        try:
            rows, following, found, total = await visit.shared(
                ("devices", wanted, after), read, EVERY_S
            )
        except EdgemlError as error:
            with self._fault:
                parts.problem(error)
            rows, following, found, total = [], None, 0, self._total
        if (wanted, after) == (self._wanted, self._after):
            self._next, self._found, self._total = following, found, total
            self._draw_rows(rows)

    def _draw_rows(self, rows: list[view.DeviceRow]) -> None:
        self._shown = [row.id for row in rows]
        self._count.set_content(parts.escape(view.count_text(self._found, self._total)))
        is_chosen = self._chosen if self._visit.may(Role.OPERATOR) else None
        self._table.show({row.id: _cells(row) for row in rows}, is_chosen)
        self._back.props["disabled"] = not self._after
        self._on.props["disabled"] = not self._next
        for button in (self._back, self._on):
            button.update()
        self._draw_empty(bool(rows))

    def _draw_empty(self, is_filled: bool) -> None:
        kind = "" if is_filled else "filter" if self._total else "fleet"
        if kind == getattr(self, "_kind", ""):
            return
        self._kind = kind
        self._empty.clear()
        with self._empty:
            if kind == "fleet":
                parts.empty(
                    "No device yet.",
                    "A device enrols with a token that is good once. Make one, and follow it:",
                    "edgeml fleet enroll cam-1 --label site=north",
                )
            elif kind == "filter":
                parts.empty(
                    "No device is like that.",
                    f"A selector chooses by labels, as Kubernetes does: {_GRAMMAR}. "
                    "The same on a command line:",
                    f"edgeml devices list --selector '{self._wanted.selector or 'site=north'}'",
                )

    def _tick(self, key: str, is_ticked: bool) -> None:
        keys = {key} if key else set(self._shown)
        self._chosen = self._chosen | keys if is_ticked else self._chosen - keys
        self._draw_actions()

    def _draw_actions(self) -> None:
        self._actions.clear()
        if not self._visit.may(Role.OPERATOR):
            return
        with self._actions:
            number = len(self._chosen)
            if number:
                write("span", f"{number:,} chosen", "soft")
                parts.button("None", self._choose_none)
            labels = parts.button("Change labels…", self._label)
            restart = parts.button("Restart…", self._restart)
            for button in (labels, restart):
                button.props["disabled"] = not (number or self._found)

    def _choose_none(self) -> None:
        self._chosen.clear()
        self._draw_actions()
        ui.timer(0, self.refresh, once=True)

    async def _names(self) -> list[str]:
        """The devices that were ticked, else all that the filter finds."""
        if self._chosen:
            return sorted(self._chosen)
        return await self._visit.read(device_search.names, self._wanted, self._visit.scope)

    async def _label(self) -> None:
        names = await self._names()
        await change_labels(self._visit, names, _whom(names, self._chosen, self._found), self._work)
        await self.refresh()

    async def _restart(self) -> None:
        names = await self._names()
        lines = [
            f"{plural(len(names), 'device')}: the agent ends and starts again.",
            "No frame is judged for some seconds; releases and data stay.",
            "Who is offline does it when it is back, within an hour; after that, not at all.",
        ]
        why = await parts.confirm(
            f"Restart {plural(len(names), 'device')}?", lines,
            typed=str(len(names)), reason=True, do="Restart",
        )  # fmt: skip
        if why is None:
            return

        async def do(batch: Sequence[str]) -> int | None:
            return await self._visit.act(Role.OPERATOR, why, _restart, batch)

        try:
            await self._visit.require_devices(names)
        except EdgemlError as error:
            parts.refused(error)
            return
        with self._work:
            done = await in_batches("Asking for restarts", names, 20, do)
        parts.said(f"{plural(done, 'device')} asked to restart.")


def _restart(services: Services, caller: Caller, names: Sequence[str]) -> int:
    """Ask devices to restart; those that cannot be asked are left out of the count."""
    done = 0
    for name in names:
        try:
            commands.create(services, caller, name, CommandKind.RESTART)
        except EdgemlError:
            continue
        done += 1
    return done


def _cells(row: view.DeviceRow) -> list[Cell | str]:
    return [
        Cell(row.id, row.address),
        Cell(row.state, tone=row.tone),
        row.runs,
        Cell(row.phase, tone=row.phase_tone),
        row.hardware,
        row.labels,
        row.seen,
    ]


def _whom(names: Sequence[str], chosen: set[str], found: int) -> str:
    if chosen:
        return f"the {plural(len(names), 'device')} that you have chosen"
    return f"all {plural(found, 'device')} that the filter finds"
