"""The frame of every page: navigation, who is looking, the theme, the bell of alerts."""

from dataclasses import dataclass
from pathlib import Path

from nicegui import ui

from fleet.console.parts import write
from fleet.console.paths import PATH, to
from fleet.console.visit import Visit
from fleet.roles import Role
from fleet.services import alerts

_FOLDER = Path(__file__).parent
_THEME_COOKIE = "edgeml_theme"
_THEMES: dict[str, tuple[bool | None, str, str]] = {
    "auto": (None, "Theme: as the system", "brightness_auto"),
    "dark": (True, "Theme: dark", "dark_mode"),
    "light": (False, "Theme: light", "light_mode"),
}


@dataclass(frozen=True)
class Entry:
    """A page in the navigation; `key` after `g` leads there."""

    path: str
    name: str
    icon: str
    key: str
    role: Role = Role.VIEWER


ENTRIES = (
    Entry("/", "Overview", "dashboard", "o"),
    Entry("/devices", "Devices", "memory", "d"),
    Entry("/models", "Models", "hub", "m"),
    Entry("/rollouts", "Rollouts", "rocket_launch", "r"),
    Entry("/monitoring", "Monitoring", "show_chart", "n"),
    Entry("/audit", "Audit", "history", "a"),
    Entry("/users", "Users and tokens", "group", "u"),
    Entry("/settings", "Settings", "settings", "s"),
)


def frame(visit: Visit, path: str, title: str) -> ui.element:
    """Draw it; returns where the page of a path goes."""
    quasars = ui.context.client.content.parent_slot
    if quasars is not None:
        quasars.parent.tag = "div"  # its page is a <main> around ours and the navigation
    ui.add_head_html(f"<style>{(_FOLDER / 'console.css').read_text()}</style>")
    ui.add_head_html(f"<script>{(_FOLDER / 'console.js').read_text()}</script>")
    with ui.element("div").classes("frame"):
        write("a", "Skip to the content", "skip").props["href"] = "#main"
        with ui.element("aside").classes("rail"):
            with ui.element("a").classes("brand").props(f"href={to('/')}"):
                write("span", "edgeml")
                write("span", "fleet", "soft")
            with ui.element("nav").props("aria-label=Pages"):
                for entry in ENTRIES:
                    if visit.may(entry.role):
                        _entry(entry, is_current=_is_below(path, entry.path))
        with ui.element("div").classes("sheet"):
            with ui.element("header").classes("top"):
                visit.heading = write("h1", title)
                with ui.element("div").classes("tools"):
                    _bell(visit)
                    _theme(visit.request.cookies.get(_THEME_COOKIE, ""))
                    who = write("a", visit.principal.actor, "who")
                    who.props["href"] = "/logout"
                    who.props["title"] = f"You are {visit.principal.role}; log out"
            main = ui.element("main").classes("main").props("id=main tabindex=-1")
    return main


def _is_below(path: str, entry: str) -> bool:
    if path.startswith(("/releases", "/compare")):
        return entry == "/models"
    return path == entry or (entry != "/" and path.startswith(f"{entry}/"))


def _entry(entry: Entry, *, is_current: bool) -> None:
    link = ui.element("a").classes("entry")
    link.props["href"] = to(entry.path)
    link.props["data-key"] = entry.key
    link.props["title"] = f"{entry.name} (press g, then {entry.key})"
    if is_current:
        link.props["aria-current"] = "page"
    with link:
        ui.icon(entry.icon)
        write("span", entry.name)


def _bell(visit: Visit) -> None:
    """How many alerts fire; leads to them."""
    bell = ui.element("a").classes("bell")
    bell.props["href"] = to("/#alerts")
    with bell:
        ui.icon("notifications")
        count = write("span", "", "count")
    shown = -1

    def read() -> int:
        page = alerts.list_alerts(visit.services, state="firing", limit=100, scope=visit.scope)
        return len(page["items"])

    async def refresh() -> None:
        nonlocal shown
        firing = await visit.shared("alerts firing", read)
        if firing != shown:
            shown = firing
            count.set_content(str(firing) if firing else "")
            bell.props["aria-label"] = f"Alerts: {firing}"
            bell.props["title"] = f"{firing} alerts fire" if firing else "No alert fires"
            bell.update()

    bell.props["aria-label"] = "Alerts"
    visit.live(refresh, 2.0)


def _theme(chosen: str) -> None:
    """The button that goes through the themes; the browser remembers the choice."""
    names = list(_THEMES)
    name = chosen if chosen in _THEMES else names[0]
    dark = ui.dark_mode(value=_THEMES[name][0])
    button = ui.element("button").classes("theme").props("type=button")
    with button:
        icon = ui.icon(_THEMES[name][2])

    def say() -> None:
        button.props["aria-label"] = button.props["title"] = _THEMES[name][1]
        icon.props["name"] = _THEMES[name][2]
        button.update()
        icon.update()

    def change() -> None:
        nonlocal name
        name = names[(names.index(name) + 1) % len(names)]
        dark.value = _THEMES[name][0]
        say()
        cookie = f"{_THEME_COOKIE}={name}; path={PATH}; max-age=31536000; samesite=strict"
        ui.run_javascript(f"document.cookie = '{cookie}'")

    say()
    button.on("click", change)
