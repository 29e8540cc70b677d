"""Long lists: a grid of rows, and the buttons between the pages that the server gives."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nicegui import ui


def grid(
    columns: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    *,
    label: str,
    key: str = "id",
    height: str = "",
    **options: Any,
) -> ui.aggrid:
    """A table of up to some hundred rows; the server makes pages of more (see `pager`).

    Args:
        columns: AG Grid's: `{"field": "name", "headerName": "Name", "flex": 1}`. A column with
            `"link": "address"` shows its field as a link to the address in that other field.
        rows: what `field` names; text, numbers.
        label: what the table is, for screen readers.
        key: the field that names a row, so that updates keep selection and scroll.
        height: CSS; empty grows with the rows.
        options: any of AG Grid's own.
    """
    made = [_column(dict(column)) for column in columns]
    shown = ui.aggrid(
        {
            "columnDefs": made,
            "rowData": [dict(row) for row in rows],
            "defaultColDef": {"sortable": True, "resizable": True, "suppressMovable": True},
            ":getRowId": f"(params) => String(params.data[{json.dumps(key)}])",
            "domLayout": "normal" if height else "autoHeight",
            "ensureDomOrder": True,
            "animateRows": False,
            "suppressCellFocus": False,
            **options,
        },
        auto_size_columns=False,
    ).classes("grid")
    shown.props["aria-label"] = label
    if height:
        shown.style(f"height: {height}")
    return shown


def update_grid(shown: ui.aggrid, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the rows of a grid; selection and scroll stay."""
    shown.run_grid_method("setGridOption", "rowData", [dict(row) for row in rows])


def once_live(turn: Callable[[], Awaitable[None]]) -> None:
    """Call something once, as soon as the browser is there; the page is sent before."""
    client, is_done = ui.context.client, False

    async def call() -> None:
        nonlocal is_done
        if not is_done:
            is_done = True
            await turn()

    if client.has_socket_connection:
        ui.timer(0, call, once=True)
    else:
        client.on_connect(call)


def pager(
    load: Callable[[str], Awaitable[str | None]], *, first: str = ""
) -> Callable[[], Awaitable[None]]:
    """The buttons of a list that the server gives by pages; returns what begins it anew.

    Args:
        load: shows the page after a cursor ("" for the first), gives the next cursor or None.
        first: the cursor to begin with, of a deep link.
    """
    cursors = [first]
    following: str | None = None
    with ui.element("nav").classes("pager").props("aria-label='Pages of the list'"):
        before = _button("Previous")
        number = ui.html("", sanitize=False, tag="span").classes("soft small")
        after = _button("Next")

    async def turn() -> None:
        nonlocal following
        following = await load(cursors[-1])
        number.set_content(f"Page {len(cursors)}")
        for shown, is_off in ((before, len(cursors) == 1), (after, not following)):
            shown.props["disabled"] = is_off
            shown.update()

    async def back() -> None:
        if len(cursors) > 1:
            cursors.pop()
            await turn()

    async def on() -> None:
        if following:
            cursors.append(following)
            await turn()

    async def anew() -> None:
        cursors[:] = [""]
        await turn()

    before.on("click", back)
    after.on("click", on)
    once_live(turn)
    return anew


def _column(column: dict[str, Any]) -> dict[str, Any]:
    address = column.pop("link", None)
    if address is not None:
        column[":cellRenderer"] = (
            "(params) => { const link = document.createElement('a');"
            "link.textContent = params.value ?? '';"
            f"link.href = (params.data || {{}})[{json.dumps(address)}] || '#'; return link; }}"
        )
    return column


def _button(text: str) -> ui.element:
    shown = ui.html(text, sanitize=False, tag="button").classes("button plain")
    shown.props["type"] = "button"
    return shown
