"""The pages of the console: how they are registered, and how they come into the application.

A page is a function of a `Visit`, registered with `page`; it runs inside the frame. What it reads
goes through `Visit.read` or `Visit.shared`, what it changes through `Visit.act`, and what keeps it
live is told with `Visit.live`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import nicegui
from fastapi import FastAPI
from nicegui import ui
from starlette.requests import Request
from starlette.responses import RedirectResponse

from edgeml.errors import EdgemlError
from fleet.console import parts
from fleet.console.compression import Compression
from fleet.console.feed import Readings
from fleet.console.frame import frame
from fleet.console.paths import PATH
from fleet.console.security import PolicyMiddleware
from fleet.console.sockets import guard
from fleet.console.visit import TITLE, Visit
from fleet.problem import NotFound, status_of
from fleet.roles import Role
from fleet.services.context import Services

__all__ = ["Visit", "mount_pages", "page"]

Show = Callable[..., Awaitable[None]]

_FOLDER = Path(__file__).parent
_RECONNECT_S = 10.0
_BUILD_S = 30.0
_MESSAGES_KEPT = 100
_FIXED = tuple(
    f"/_nicegui/{nicegui.__version__}/{kind}/"
    for kind in ("static", "libraries", "components", "esm")
)


@dataclass(frozen=True)
class _Page:
    path: str
    title: str
    role: Role
    show: Show


_PAGES: list[_Page] = []


def page(path: str, title: str, role: Role = Role.VIEWER) -> Callable[[Show], Show]:
    """Register a page: `async def show(visit, <parts of the path>)`.

    Args:
        path: below the console, with `{parts}`.
        title: its heading, which `Visit.title` can replace.
        role: what whoever looks must at least be.
    """

    def register(show: Show) -> Show:
        _PAGES.append(_Page(path, title, role, show))
        return show

    return register


def mount_pages(app: FastAPI, services: Services) -> None:
    """Add the registered pages to an application, below `/console`; `/` leads there.

    Whatever lets people in stands before it. NiceGUI is one in a process, and so is the console.
    """
    readings = Readings(lambda: services.changes.count)
    guard()

    async def home() -> RedirectResponse:
        return RedirectResponse(f"{PATH}/", 303)

    app.get("/", include_in_schema=False)(home)
    nicegui.app.add_middleware(PolicyMiddleware)
    # Its bar has no name for screen readers; what takes long here says so itself.
    nicegui.app.config.quasar_config["loadingBar"] = {"skipHijack": True}
    # `/rollouts/new` before `/rollouts/{rollout}`.
    everything_else = _Page("/{path:path}", "Not found", Role.VIEWER, _not_found)
    for one in (*sorted(_PAGES, key=lambda known: "{" in known.path), everything_else):
        made = ui.page(one.path, title=f"{one.title} | {TITLE}", response_timeout=_BUILD_S)
        made(_shown(one, services, readings))
    ui.run_with(
        app,
        mount_path=PATH,
        title=TITLE,
        favicon=(_FOLDER / "favicon.svg").read_text(),
        language="en-US",
        dark=None,
        tailwind=False,
        reconnect_timeout=_RECONNECT_S,
        message_history_length=_MESSAGES_KEPT,
        show_welcome_message=False,
        gzip_middleware_factory=lambda inner: Compression(inner, _FIXED),
    )


async def _not_found(_visit: Visit, path: str) -> None:
    raise NotFound(f"There is no page {path[:100]!r}.", fix="Choose one of the navigation.")


def _shown(page: _Page, services: Services, readings: Readings) -> Callable[..., Awaitable[None]]:
    async def show(request: Request) -> None:
        visit = Visit(services, readings, request)
        with frame(visit, page.path, page.title) as main:
            try:
                visit.require(page.role)
                await visit.check_path()
                await page.show(visit, **request.path_params)
            except EdgemlError as error:
                ui.context.client.status_code = status_of(error)
                main.clear()
                with main:
                    parts.problem(error)
        visit.built()

    return show
