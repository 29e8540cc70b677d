"""Tables as HTML: read by people and screen readers, cards on narrow screens. Pure.

All text is escaped here; a cell is text, maybe a link, a tone (a chip) and a note below it.
"""

from collections.abc import Collection, Mapping, Sequence
from html import escape

import msgspec

_MARKS = {"good": "✓", "bad": "✕", "warn": "!", "busy": "…", "idle": "·"}


class Cell(msgspec.Struct, frozen=True):
    """What stands in a cell; `tone` makes a chip of it, `number` puts it to the right.

    `opens` makes a button of it, which opens its row where the table is one that does.
    """

    text: str
    address: str = ""
    tone: str = ""
    note: str = ""
    number: bool = False
    opens: bool = False


Row = Sequence[Cell | str]


def table(
    head: Sequence[str],
    rows: Mapping[str, Row],
    *,
    label: str,
    chosen: Collection[str] | None = None,
) -> str:
    """The inside of a `<table>`.

    >>> table(["Name"], {"a": ["<b>"]}, label="Names").count("&lt;b&gt;")
    1

    Args:
        head: names of the columns.
        rows: the cells of each row, by the row's key.
        label: what the table is, read aloud.
        chosen: keys of rows whose box is ticked; None for a table without boxes.
    """
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    if chosen is not None:
        is_all = bool(rows) and all(key in chosen for key in rows)
        columns = (
            f'<th scope="col" class="tick">{_box("", "all of this page", is_all)}</th>{columns}'
        )
    body = "".join(_row(head, key, cells, chosen) for key, cells in rows.items())
    caption = f'<caption class="hidden">{escape(label)}</caption>'
    return f"{caption}<thead><tr>{columns}</tr></thead><tbody>{body}</tbody>"


def _row(head: Sequence[str], key: str, cells: Row, chosen: Collection[str] | None) -> str:
    box = ""
    if chosen is not None:
        box = f'<td class="tick">{_box(key, key, key in chosen)}</td>'
    shown = "".join(
        _cell(name, cell if isinstance(cell, Cell) else Cell(cell), is_first=number == 0)
        for number, (name, cell) in enumerate(zip(head, cells, strict=True))
    )
    return f'<tr data-key="{escape(key)}">{box}{shown}</tr>'


def _cell(name: str, cell: Cell, *, is_first: bool) -> str:
    text = escape(cell.text)
    if cell.tone:
        mark = f'<span class="mark" aria-hidden="true">{_MARKS[cell.tone]}</span>'
        text = f'<span class="chip {cell.tone}">{mark}{text}</span>'
    if cell.address:
        text = f'<a href="{escape(cell.address)}">{text}</a>'
    if cell.opens:
        text = f'<button type="button" class="opens">{text}</button>'
    if cell.note:
        text += f'<span class="note soft">{escape(cell.note)}</span>'
    tag, scope = ("th", ' scope="row"') if is_first else ("td", "")
    number = ' class="number"' if cell.number else ""
    return f'<{tag}{scope}{number} data-label="{escape(name)}"><div>{text}</div></{tag}>'


def _box(key: str, label: str, is_ticked: bool) -> str:
    ticked = " checked" if is_ticked else ""
    return (
        f'<input type="checkbox" data-tick="{escape(key)}" '
        f'aria-label="Choose {escape(label)}"{ticked}>'
    )
