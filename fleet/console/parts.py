"""The parts that pages are made of. Text of devices and operators is escaped by `write` alone."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

from nicegui import ui

from edgeml.errors import EdgemlError
from fleet.console.inputs import choice, filter_field, segments
from fleet.console.lists import grid, once_live, pager, update_grid
from fleet.console.plots import plot, zoomed

__all__ = [
    "button",
    "chip",
    "choice",
    "command",
    "confirm",
    "dialog",
    "empty",
    "escape",
    "facts",
    "filter_field",
    "grid",
    "link",
    "mark",
    "once_live",
    "pager",
    "panel",
    "plot",
    "problem",
    "redraw",
    "refused",
    "said",
    "segments",
    "sentence",
    "update_grid",
    "write",
    "zoomed",
]

MARKS = {"good": "✓", "bad": "✕", "warn": "!", "busy": "…", "idle": "·"}
_COPY = "(event) => navigator.clipboard && navigator.clipboard.writeText(%s)"


def write(tag: str, text: str, classes: str = "") -> ui.html:
    """An element with text in it."""
    return ui.html(escape(text), sanitize=False, tag=tag).classes(classes)


def mark(tone: str) -> None:
    """A sign beside the colour, for those who cannot tell the colours apart."""
    write("span", MARKS[tone], "mark").props["aria-hidden"] = "true"


def chip(text: str, tone: str) -> ui.element:
    """A state in a word; `tone` is `good`, `bad`, `warn`, `busy` or `idle`."""
    return write("span", text, f"chip {tone}")


def sentence(text: str, tone: str = "busy") -> ui.element:
    """The sentence that says why a rollout stands where it stands."""
    shown = write("p", text, f"sentence {tone}")
    shown.props["data-testid"] = "sentence"
    return shown


def link(text: str, address: str, classes: str = "") -> ui.element:
    """A link; `fleet.console.paths` makes addresses."""
    shown = write("a", text, classes)
    shown.props["href"] = address
    return shown


def panel(title: str = "", classes: str = "") -> ui.element:
    """A card with a heading; use it with `with`."""
    shown = ui.element("section").classes(f"panel {classes}")
    if title:
        shown.props["aria-label"] = title
        with shown:
            write("h2", title)
    return shown


def facts(pairs: Sequence[tuple[str, str]]) -> ui.element:
    """Names and values, one a line."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return ui.html(rows, sanitize=False, tag="dl").classes("facts")


def command(text: str) -> ui.element:
    """A command, with the button that copies it."""
    row = ui.element("div").classes("command")
    with row:
        write("code", text).props["tabindex"] = "0"
        copy = write("button", "Copy", "copy")
        copy.props["type"] = "button"
        copy.props["aria-label"] = f"Copy the command {text}"
        copy.on("click", js_handler=_COPY % json.dumps(text))
    return row


def empty(what: str, how: str, example: str = "") -> ui.element:
    """What stands where nothing is yet: what that is, and the command that fills it."""
    box = ui.element("div").classes("panel empty")
    with box:
        write("strong", what)
        write("p", how, "soft")
        if example:
            command(example)
    return box


def problem(error: EdgemlError) -> ui.element:
    """An error in the place of what could not be shown: what, why, and what to do."""
    box = ui.element("div").classes("notice bad").props("role=alert")
    with box:
        write("strong", error.what)
        for text in (error.why, error.fix):
            if text:
                write("p", text)
    return box


def refused(error: EdgemlError) -> None:
    """The same as a toast that stays until it is closed."""
    ui.notify(str(error), type="negative", multi_line=True, close_button="Close", timeout=0)


def said(text: str) -> None:
    """A toast that says what was done."""
    ui.notify(text, type="positive", timeout=4000)


def button(text: str, on_click: Callable[[], Any] | None = None, kind: str = "plain") -> ui.element:
    """A button; `kind` is `primary`, `plain` or `danger`."""
    shown = write("button", text, f"button {kind}")
    shown.props["type"] = "button"
    if on_click is not None:
        shown.on("click", on_click)
    return shown


@contextmanager
def dialog(title: str, role: str = "dialog") -> Iterator[ui.dialog]:
    """What is drawn inside stands in a dialog; await it for what it submits, and delete it."""
    with ui.dialog() as shown, ui.element("div").classes("dialog"):
        shown.props["role"] = role
        shown.props["aria-label"] = title
        write("h2", title)
        yield shown


async def confirm(
    title: str,
    consequences: Sequence[str],
    *,
    typed: str = "",
    reason: bool = False,
    do: str = "Do it",
    inside: Callable[[], Any] | None = None,
) -> str | None:
    """Ask before something dangerous; None where it is left, else the reason (maybe empty).

    Args:
        title: the question.
        consequences: what will happen, to how many devices; a line each.
        typed: what has to be typed first: the name of what is touched.
        reason: whether a reason has to be given.
        do: what the button says.
        inside: draws what else is to be chosen, below the consequences.
    """
    with dialog(title, "alertdialog") as asked:
        with ui.element("ul"):
            for line in consequences:
                write("li", line)
        if inside is not None:
            inside()
        why = _field("Reason, for the audit log") if reason else None
        name = _field(f"Type {typed} to confirm") if typed else None
        with ui.element("div").classes("line end"):
            button("Cancel", lambda: asked.submit(None))
            go = button(do, lambda: asked.submit(why.value.strip() if why else ""), "danger")

    def check() -> None:
        is_ready = (name is None or name.value.strip() == typed) and (
            why is None or bool(why.value.strip())
        )
        go.props["disabled"] = not is_ready
        go.update()

    for one in (why, name):
        if one is not None:
            one.on_value_change(check)
    check()
    try:
        answer: str | None = await asked
        return answer
    finally:
        asked.delete()


def _field(label: str) -> ui.input:
    return ui.input(label).props("outlined dense autocomplete=off").classes("field")


def redraw(draw: Callable[[Any], object], classes: str = "") -> Callable[[Any], None]:
    """A place that is drawn again only when what it shows is another: call it with the value."""
    place = ui.element("div").classes(classes)
    drawn: list[Any] = []

    def show(value: Any) -> None:
        if drawn != [value]:
            drawn[:] = [value]
            place.clear()
            with place:
                draw(value)

    return show
