"""The overview, drawn with NiceGUI: live without reload, light and dark, no other host."""

import datetime as dt

from fastapi import FastAPI
from nicegui import run, ui

from fleet.console import view
from fleet.services.context import Services

EVERY_S = 1.0

STYLE = """
:root { --line: #d9dee5; --soft: #5b6673; --card: #ffffff; --page: #f4f6f8; --ink: #17202a;
  --good: #14804a; --bad: #c22f2f; --warn: #9a6200; --busy: #1d63c9; --idle: #8a94a0; }
.body--dark { --line: #313a45; --soft: #a2adba; --card: #1b2129; --page: #12161b; --ink: #e8edf2;
  --good: #4cc38a; --bad: #ff7b72; --warn: #e3a93c; --busy: #6ea8fe; --idle: #6d7885; }
body { background: var(--page); color: var(--ink); }
.nicegui-content { padding: 0; }
.page { width: 100%; max-width: 1120px; margin: 0 auto; padding: 16px; gap: 16px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px; width: 100%; gap: 10px; }
.soft { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.busy { color: var(--busy); } .idle { color: var(--idle); }
.chip { border: 1px solid currentColor; border-radius: 999px; padding: 1px 10px; font-size: 13px; }
.cell { border: 1px solid currentColor; border-radius: 6px; padding: 2px 8px; font-size: 13px; }
.step { border-bottom: 3px solid var(--line); padding: 2px 10px 4px 0; font-size: 13px; }
.step.now { border-color: var(--busy); font-weight: 600; } .step.done { border-color: var(--good); }
table.plain { width: 100%; border-collapse: collapse; font-size: 14px; }
table.plain th { text-align: left; color: var(--soft); font-weight: 500; padding: 4px 8px 4px 0; }
table.plain td { border-top: 1px solid var(--line); padding: 5px 8px 5px 0; vertical-align: top; }
.scroll { width: 100%; overflow-x: auto; }
code { background: var(--page); border: 1px solid var(--line); border-radius: 6px;
  padding: 2px 8px; font-size: 13px; overflow-wrap: anywhere; }
"""


def mount(app: FastAPI, services: Services) -> None:
    """Add the console's page to the operators' application.

    Its listener's middleware lets only logged-in operators through.
    """

    async def overview() -> None:
        ui.add_css(STYLE)
        dark = ui.dark_mode(value=None)
        shown = await run.io_bound(view.read, services)
        if shown is None:
            return  # the server stops
        with ui.column().classes("page"):
            with ui.row().classes("items-center justify-between w-full"):
                ui.html(
                    "<h1 style='font-size:22px;font-weight:650;line-height:1.2;margin:0'>"
                    "edgeml fleet</h1>",
                    sanitize=False,
                )
                ui.button("Light / dark", on_click=dark.toggle).props("flat dense no-caps")
            content = ui.column().classes("w-full").style("gap: 16px")
        with content:
            _draw(shown)
        last = shown

        async def refresh() -> None:
            nonlocal last
            now = await run.io_bound(view.read, services)
            if now is not None and now != last:
                last = now
                content.clear()
                with content:
                    _draw(now)

        ui.timer(EVERY_S, refresh)

    ui.run_with(
        app,
        root=overview,
        title="edgeml fleet",
        favicon="🛰️",
        dark=None,
        tailwind=False,
        show_welcome_message=False,
    )


def _draw(shown: view.Overview) -> None:
    _summary(shown)
    for card in shown.rollouts:
        _rollout(card)
    if not shown.rollouts:
        _empty("No rollout yet", "edgeml rollout create digits:1.0.0")
    _devices(shown.devices)
    _events(shown.events)


def _summary(shown: view.Overview) -> None:
    total = len(shown.devices)
    with ui.column().classes("card"):
        if shown.frozen:
            ui.label(f"Rollouts are frozen: {shown.frozen}").classes("bad")
        state = "good" if shown.online == total else "warn"
        ui.label(f"{shown.online} of {total} devices are online").classes(
            state if total else "soft"
        ).style("font-size: 18px; font-weight: 600")
        moving = [card.title for card in shown.rollouts if card.status == "running"]
        text = f"In motion: {', '.join(moving)}" if moving else "No rollout is in motion."
        ui.label(text).classes("soft")


def _rollout(card: view.RolloutCard) -> None:
    with ui.column().classes("card"):
        with ui.row().classes("items-center").style("gap: 10px"):
            ui.label(card.title).style("font-size: 17px; font-weight: 600")
            ui.label(card.status).classes(f"chip {view.tone(card.status)}")
        ui.label(card.sentence).props('data-testid="sentence"')
        with ui.row().style("gap: 4px"):
            for number, wave in enumerate(card.waves, 1):
                done = number < card.wave or card.status == "completed"
                kind = "done" if done else "now" if number == card.wave else ""
                ui.label(f"{number}. {wave}").classes(f"step {kind}")
        with ui.row().style("gap: 6px"):
            for cell in card.cells:
                with ui.label(cell.name).classes(f"cell {cell.tone}"):
                    ui.tooltip(cell.text)
        if card.gates:
            _table(
                ("gate", "result", "value", "bound", "why"),
                [
                    (gate.name, gate.result, gate.value, gate.bound, gate.reason)
                    for gate in card.gates
                ],
                toned=1,
            )


def _devices(rows: tuple[view.DeviceRow, ...]) -> None:
    if not rows:
        _empty("No device yet", "edgeml fleet enroll cam-1 --label site=north")
        return
    with ui.column().classes("card"):
        ui.label("Devices").style("font-size: 17px; font-weight: 600")
        _table(
            ("device", "online", "runs", "update", "labels", "hardware"),
            [
                (
                    row.name,
                    "online" if row.online else "offline",
                    row.running or "nothing yet",
                    row.phase or "none",
                    row.labels,
                    row.hardware_class,
                )
                for row in rows
            ],
            toned=3,
        )


def _events(events: tuple[view.Event, ...]) -> None:
    with ui.column().classes("card"):
        ui.label("What happened").style("font-size: 17px; font-weight: 600")
        for event in events:
            when = dt.datetime.fromtimestamp(event.at, dt.UTC).strftime("%H:%M:%S UTC")
            with ui.row().style("gap: 10px; flex-wrap: nowrap"):
                ui.label(when).classes("soft").style("white-space: nowrap; font-size: 13px")
                ui.label(event.text).style("font-size: 14px; overflow-wrap: anywhere")


def _empty(title: str, command: str) -> None:
    with ui.column().classes("card"):
        ui.label(title).style("font-weight: 600")
        ui.html(f"Fill this with <code>{command}</code>", sanitize=False)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], *, toned: int) -> None:
    with ui.element("div").classes("scroll"), ui.element("table").classes("plain"):
        with ui.element("thead"), ui.element("tr"):
            for name in head:
                with ui.element("th").props('scope="col"'):
                    ui.label(name)
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for index, text in enumerate(row):
                        with ui.element("td"):
                            ui.label(text).classes(view.tone(text) if index == toned else "")
