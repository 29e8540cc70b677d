"""A device: what is wanted of it beside what it says, what it did and costs, and its commands."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from nicegui import ui

from cloud_sync.commands import CommandKind
from fleet.console import device_tabs, parts, paths
from fleet.console.device_parts import Table, tabs
from fleet.console.label_dialog import change_labels
from fleet.console.parts import write
from fleet.console.shell import Visit, page
from fleet.console.views import device as view
from fleet.console.views import devices as list_view
from fleet.console.views.tables import Cell
from fleet.resources import DeviceInfo
from fleet.roles import Role
from fleet.services import commands, decommission, devices, identity
from fleet.services.context import Caller, Services

TABS = {
    "twin": "Twin",
    "charts": "Charts",
    "history": "History",
    "evidence": "Evidence",
    "data": "Data",
    "commands": "Commands",
    "configuration": "Configuration",
}


@page("/devices/{device}", "Device")
async def show(visit: Visit, device: str) -> None:
    """Draw it."""
    visit.title(device)
    await visit.read(devices.show, device)  # where there is none, the page says so
    with ui.element("div").classes("line between"):
        head = parts.redraw(_head, "line")
        # Drawn apart from what changes every minute: a dialog goes with the button that opened it.
        actions = parts.redraw(lambda is_revoked: _actions(visit, device, is_revoked))
    labels = parts.redraw(_labels, "line small")
    tab = visit.query("tab") if visit.query("tab") in TABS else "twin"
    tabs(TABS, tab, f"Parts of {device}")
    draw: dict[str, Callable[[Visit, str], Awaitable[None]]] = {
        "twin": _twin,
        "charts": device_tabs.charts,
        "history": device_tabs.history,
        "evidence": device_tabs.evidence,
        "data": device_tabs.data,
        "commands": device_tabs.told,
        "configuration": device_tabs.configuration,
    }

    async def refresh() -> None:
        info = await _read(visit, device)
        seen = list_view.seen(info, visit.services.now())
        head((list_view.state_of(info), list_view.runs(info), info["hardware_class"], seen))
        labels(info["labels"])
        actions(info["revoked_at"] is not None)

    await refresh()
    visit.live(refresh)
    with ui.element("div").classes("stack"):
        await draw[tab](visit, device)


async def _read(visit: Visit, device: str) -> DeviceInfo:
    return await visit.shared(("device", device), lambda: devices.show(visit.services, device))


def _head(shown: tuple[tuple[str, str], str, str, str]) -> None:
    (state, tone), runs, hardware_class, seen = shown
    parts.chip(state, tone)
    write("span", runs or "runs nothing yet")
    write("span", hardware_class, "soft")
    write("span", f"last seen {seen}", "soft")


def _labels(labels: Mapping[str, str]) -> None:
    for key, value in sorted(labels.items()):
        parts.link(f"{key}={value}", paths.to("/devices", selector=f"{key}={value}"), "chip idle")
    if not labels:
        write("span", "No label: no rollout that chooses by labels reaches it.", "soft")


def _actions(visit: Visit, device: str, is_revoked: bool) -> None:
    if not visit.may(Role.OPERATOR):
        return
    work = ui.element("div")
    with ui.element("div").classes("buttons"):
        parts.button("Labels…", lambda: change_labels(visit, [device], device, work))
        if not is_revoked:
            parts.button("Restart…", lambda: _restart(visit, device))
            parts.button("Revoke…", lambda: _revoke(visit, device), "plain bad")
        if visit.may(Role.ADMIN):
            parts.button("Decommission…", lambda: _decommission(visit, device), "plain bad")


async def _sure(title: str, lines: Sequence[str], device: str, do: str) -> str | None:
    return await parts.confirm(title, lines, typed=device, reason=True, do=do)


async def _restart(visit: Visit, device: str) -> None:
    lines = [
        "1 device: the agent ends and starts again; for some seconds no frame is judged.",
        "Releases, configuration and what waits to be sent stay.",
    ]
    why = await _sure(f"Restart {device}?", lines, device, "Restart")
    if why is None:
        return
    sent = await visit.act(Role.OPERATOR, why, commands.create, device, CommandKind.RESTART)
    if sent is not None:
        parts.said(f"{device} was asked to restart.")


async def _revoke(visit: Visit, device: str) -> None:
    lines = [
        "1 device: it is let in no more, neither by the API nor by the broker.",
        "It goes on running what it has; nothing can be rolled out to it, and nothing is heard.",
        "What it had sent stays. To have it back it must be enrolled again.",
    ]
    why = await _sure(f"Revoke {device}?", lines, device, "Revoke")
    if why is not None and await visit.act(Role.OPERATOR, why, identity.revoke, device) is not None:
        parts.said(f"{device} is revoked.")


async def _decommission(visit: Visit, device: str) -> None:
    lines = [
        "1 device: it is told to delete its keys, releases and data, then it is revoked.",
        "Its telemetry, labels, commands and configuration are deleted here.",
        "Its evidence, its keys and the audit log stay. This cannot be taken back.",
    ]
    why = await _sure(f"Decommission {device}?", lines, device, "Decommission")
    if why is None:
        return
    found = await visit.act(Role.ADMIN, why, _wipe, device)
    if found is not None:
        parts.said(f"The decommission of {device} is {found}.")


def _wipe(services: Services, caller: Caller, device: str) -> str:
    return decommission.decommission(services, caller, device, wipe=True)["status"]


async def _twin(visit: Visit, device: str) -> None:
    """Desired beside reported, the sources, and what the device is."""
    head = ("What", "Desired", "Reported", "State", "Why")
    with parts.panel("Desired and reported"):
        lines = Table(head, "Desired and reported state")
        nothing = ui.element("div")
    with parts.panel("Sources"):
        sources = Table(("Source", "Model", "State", "Why"), "Sources")
        no_source = parts.redraw(_no_source)
    with parts.panel("The device"):
        about = parts.redraw(_facts)
    words = {
        "good": "the same",
        "bad": "failed",
        "warn": "refused",
        "busy": "on its way",
        "idle": "left alone",
    }
    is_empty: list[bool] = []

    async def refresh() -> None:
        info = await _read(visit, device)
        shown = view.twin(info)
        lines.show(
            {
                one.name: [
                    one.name, one.desired, one.reported,
                    Cell(words[one.tone], tone=one.tone), one.note,
                ]
                for one in shown
            }
        )  # fmt: skip
        if is_empty != [not shown]:
            is_empty[:] = [not shown]
            nothing.clear()
            if not shown:
                with nothing:
                    parts.empty(
                        "Nothing is wanted of it yet.",
                        "A rollout gives it a release:",
                        "edgeml rollout create digits:1.0.0",
                    )
        sources.show(
            {
                one.name: [one.name, one.desired, Cell(one.reported, tone=one.tone), one.note]
                for one in view.sources(info)
            }
        )
        no_source("" if view.sources(info) else device)
        about(view.about(info))

    await refresh()
    visit.live(refresh)


def _facts(pairs: Sequence[tuple[str, str]]) -> None:
    parts.facts(pairs)


def _no_source(device: str) -> None:
    if device:
        write("p", "It reports no source. Give it one by its configuration:", "soft")
        parts.command(f"edgeml devices configuration set {device} settings.toml")
