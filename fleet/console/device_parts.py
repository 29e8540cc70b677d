"""Parts of the pages of devices and releases: tables, fields, tabs, long work with its progress."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from nicegui import ui

from fleet.console import parts
from fleet.console.inputs import begin_with
from fleet.console.parts import write
from fleet.console.views import tables
from fleet.console.views.tables import Row

T = TypeVar("T")
_OPENED = """(event) => event.target.closest("tr[data-key]") && !event.target.closest("a, input")
  && emit(event.target.closest("tr[data-key]").dataset.key)"""
_TICKED = """(event) => event.target.dataset.tick !== undefined
  && emit([event.target.dataset.tick, event.target.checked])"""


class Table:
    """A table that is drawn again only where it changed.

    Args:
        head: the names of its columns.
        label: what it is, for screen readers.
        on_tick: gets the key of a row whose box was ticked or cleared ("" for all), and which.
        on_open: gets the key of a row that was clicked; give it a cell that `opens`, for keys.
    """

    def __init__(
        self,
        head: Sequence[str],
        label: str,
        on_tick: Callable[[str, bool], Any] | None = None,
        on_open: Callable[[str], Any] | None = None,
    ) -> None:
        self._head, self._label = head, label
        with ui.element("div").classes("scroll") as box:
            box.props["tabindex"] = "0"
            box.props["role"] = "region"
            box.props["aria-label"] = f"{label} (table)"
            self._box = box
            self._shown = ui.html("", sanitize=False, tag="table").classes("listing")
        if on_tick is not None:
            self._shown.on("change", lambda event: on_tick(*event.args), js_handler=_TICKED)
        if on_open is not None:
            self._shown.classes("opening")
            self._shown.on("click", lambda event: on_open(str(event.args)), js_handler=_OPENED)
        self._content = ""

    def show(self, rows: Mapping[str, Row], chosen: Collection[str] | None = None) -> None:
        """Show rows by their keys."""
        content = tables.table(self._head, rows, label=self._label, chosen=chosen)
        if content != self._content:
            self._content = content
            self._box.set_visibility(bool(rows))
            self._shown.set_content(content)


def table(head: Sequence[str], rows: Mapping[str, Row], label: str) -> None:
    """A table that stays as it is."""
    Table(head, label).show(rows)


def field(
    label: str,
    value: str,
    on_change: Callable[[str], Any],
    *,
    hint: str = "",
    kind: str = "text",
) -> ui.element:
    """A named field; `on_change` is called when it is left or Enter is pressed."""
    with ui.element("label"):
        write("span", label)
        shown = ui.element("input")
        shown.props["type"] = kind
        begin_with(shown, value)
        shown.props["placeholder"] = hint
        shown.props["autocomplete"] = "off"
        shown.props["spellcheck"] = "false"
    shown.on(
        "change",
        lambda event: on_change(str(event.args)),
        js_handler="(event) => emit(event.target.value)",
    )
    return shown


def tabs(names: Mapping[str, str], current: str, label: str) -> None:
    """Links to the parts of a page: `names` by the value of `tab` in the address."""
    with ui.element("nav").classes("tabs").props(f"aria-label='{label}'"):
        for key, name in names.items():
            shown = parts.link(name, f"?tab={key}", "tab")
            if key == current:
                shown.props["aria-current"] = "page"


class Progress:
    """How far long work has come: a bar and a sentence, gone when it is over."""

    def __init__(self, what: str, of: int) -> None:
        self._what, self._of = what, of
        self._box = ui.element("div").classes("notice busy working").props("role=status")
        with self._box:
            self._text = write("span", "")
            self._bar = ui.element("progress").props(f"max={max(of, 1)}")
            self._bar.props["aria-label"] = what
        self.reach(0)

    def reach(self, done: int) -> None:
        """Say that so much is done."""
        self._text.set_content(parts.escape(f"{self._what}: {done:,} of {self._of:,}"))
        self._bar.props["value"] = done
        self._bar.update()

    def close(self) -> None:
        """Take it away."""
        if not self._box.is_deleted:
            self._box.delete()


async def in_batches(
    what: str, items: Sequence[T], size: int, do: Callable[[Sequence[T]], Awaitable[int | None]]
) -> int:
    """Do long work batch by batch with its progress; returns how much `do` says it did.

    The first batch that gives None, since it was refused, ends it.
    """
    progress, done = Progress(what, len(items)), 0
    try:
        for begin in range(0, len(items), size):
            said = await do(items[begin : begin + size])
            if said is None:
                break
            done += said
            progress.reach(min(begin + size, len(items)))
    finally:
        progress.close()
    return done
