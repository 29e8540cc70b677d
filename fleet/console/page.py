"""The overview as a NiceGUI page: live without reload, light and dark, no other host.

Each part of the page is drawn again only when what it shows has changed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nicegui
from fastapi import FastAPI
from nicegui import ui
from starlette.requests import Request
from starlette.responses import RedirectResponse

from fleet.console import sections
from fleet.console.feed import EVERY_S, Feed
from fleet.console.reader import Reader
from fleet.console.sections import Folds, write
from fleet.console.security import PolicyMiddleware
from fleet.console.view import Overview

PATH = "/console"
_TITLE = "edgeml fleet"
_FOLDER = Path(__file__).parent
_THEMES: dict[str, tuple[bool | None, str]] = {
    "auto": (None, "Theme: as the system"),
    "dark": (True, "Theme: dark"),
    "light": (False, "Theme: light"),
}
_THEME_COOKIE = "edgeml_theme"
_RECONNECT_S = 10.0


def mount_reader(app: FastAPI, reader: Reader) -> None:
    """Add the console to an application; it lives below `/console`, and `/` leads there.

    Whatever lets people in stands before it: to the console everyone is an operator. NiceGUI
    is one in a process, and so is the console.
    """
    feed = Feed(reader)

    async def overview(request: Request) -> None:
        await _overview(feed, request)

    async def home() -> RedirectResponse:
        return RedirectResponse(f"{PATH}/", 303)

    app.get("/", include_in_schema=False)(home)
    nicegui.app.add_middleware(PolicyMiddleware)
    ui.run_with(
        app,
        root=overview,
        mount_path=PATH,
        title=_TITLE,
        favicon=(_FOLDER / "favicon.svg").read_text(),
        language="en-US",
        dark=None,
        tailwind=False,
        reconnect_timeout=_RECONNECT_S,
        show_welcome_message=False,
    )


async def _overview(feed: Feed, request: Request) -> None:
    ui.add_head_html(f"<style>{(_FOLDER / 'console.css').read_text()}</style>")
    shown = await feed.latest()
    folds = Folds()
    with ui.element("div").classes("page"):
        with ui.element("header").classes("top"):
            write("h1", _TITLE)
            _theme(request.cookies.get(_THEME_COOKIE, ""))
        with ui.element("main").classes("main"):
            summary = ui.element("section").classes("summary")
            summary.props["aria-label"] = "The fleet at a glance"
            with ui.element("div").classes("columns"):
                with ui.element("section").classes("wide"):
                    write("h2", "Rollouts")
                    rollouts = ui.element("div").classes("stack")
                with ui.element("div").classes("side stack"):
                    devices, releases, events = (
                        ui.element("section").classes("panel") for _ in range(3)
                    )

    parts: list[tuple[Any, Callable[[Overview], Any], Callable[[Any], None]]] = [
        (summary, lambda o: o.summary, sections.summary),
        (rollouts, lambda o: o.rollouts, lambda cards: sections.rollouts(cards, folds)),
        (
            devices,
            lambda o: (o.devices, o.more_devices, o.unread_devices),
            lambda d: sections.devices(*d),
        ),
        (releases, lambda o: o.releases, sections.releases),
        (events, lambda o: o.events, sections.events),
    ]
    drawn: list[Any] = [None] * len(parts)

    def draw(overview: Overview) -> None:
        for index, (place, choose, show) in enumerate(parts):
            chosen = choose(overview)
            if chosen != drawn[index]:
                drawn[index] = chosen
                place.clear()
                with place:
                    show(chosen)

    async def refresh() -> None:
        draw(await feed.latest())

    draw(shown)
    ui.timer(EVERY_S, refresh)


def _theme(chosen: str) -> None:
    """The button that goes through the themes; the browser remembers the choice."""
    names = list(_THEMES)
    name = chosen if chosen in _THEMES else names[0]
    dark = ui.dark_mode(value=_THEMES[name][0])
    button = write("button", _THEMES[name][1], "theme")

    def change() -> None:
        nonlocal name
        name = names[(names.index(name) + 1) % len(names)]
        dark.value, text = _THEMES[name]
        button.set_content(text)
        cookie = f"{_THEME_COOKIE}={name}; path={PATH}; max-age=31536000; samesite=strict"
        ui.run_javascript(f"document.cookie = '{cookie}'")

    button.on("click", change)
