"""What is chosen and typed on a page, with the browser's own controls."""

import functools
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from nicegui import ui


def choice(
    label: str, options: Mapping[str, str], chosen: str, on_change: Callable[[str], Any]
) -> ui.html:
    """A list to choose one of; `options` are texts by value."""
    with ui.element("label").classes("control"):
        _text("span", label)
        shown = ui.html(_options(options, chosen), sanitize=False, tag="select")
    shown.on(
        "change",
        lambda event: on_change(str(event.args)),
        js_handler="(event) => emit(event.target.value)",
    )
    return shown


def _options(options: Mapping[str, str], chosen: str) -> str:
    return "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>'
        f"{escape(text)}</option>"
        for value, text in options.items()
    )


def filter_field(
    label: str, value: str, on_change: Callable[[str], Any], example: str = ""
) -> ui.element:
    """A line of text, such as a label selector, told when it is left or Enter is pressed.

    The key `/` leads to it.
    """
    with ui.element("label").classes("control grow"):
        _text("span", label)
        shown = ui.element("input").props("type=search data-filter spellcheck=false")
        begin_with(shown, value)
        shown.props["placeholder"] = example
    shown.on(
        "change",
        lambda event: on_change(str(event.args).strip()),
        js_handler="(event) => emit(event.target.value)",
    )
    return shown


def begin_with(field: ui.element, value: str) -> None:
    """Give an `<input>` its first value, and leave what is typed afterwards alone.

    As a property Vue would set it again whenever anything on the page changes; `^` makes it an
    attribute.
    """
    field.props["^value"] = value


def segments(
    label: str, options: Mapping[str, str], chosen: str, on_change: Callable[[str], Any]
) -> Callable[[str], None]:
    """A row of buttons of which one is pressed; returns what presses another."""
    buttons: dict[str, ui.element] = {}

    def press(value: str) -> None:
        for name, one in buttons.items():
            one.props["aria-pressed"] = "true" if name == value else "false"
            one.update()

    def clicked(value: str) -> Any:
        press(value)
        return on_change(value)

    with ui.element("div").classes("segments").props("role=group") as row:
        row.props["aria-label"] = label
        for value, text in options.items():
            buttons[value] = _text("button", text)
            buttons[value].props["type"] = "button"
            buttons[value].on("click", functools.partial(clicked, value))
    press(chosen)
    return press


def _text(tag: str, text: str) -> ui.html:
    return ui.html(escape(text), sanitize=False, tag=tag)
