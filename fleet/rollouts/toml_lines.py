r"""Finds the line of a key in a TOML text, so that an error can name it.

`tomllib` forgets where values stood. This scanner reads only what stands at the beginning of
lines (headers and keys) of a text that `tomllib` has accepted already; within a value that
spans lines it finds nothing.

    >>> line_of("[[waves]]\ncount = 1\n\n[[waves]]\ncount = 0\n", ("waves", 1, "count"))
    5
"""

import re
from collections.abc import Iterator

Path = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_PART = re.compile(r"""\s*(?:"([^"\n]*)"|'([^'\n]*)'|([A-Za-z0-9_-]+))\s*""")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL
)


def line_of(text: str, path: Path) -> int | None:
    """The line, counted from 1, of the key at `path`, or of the nearest table around it."""
    lines = dict(reversed(list(_keys(_without_values(text)))))
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _keys(text: str) -> Iterator[tuple[Path, int]]:
    """Every header and key with its path and line, in their order."""
    table: Path = ()
    counts: dict[Path, int] = {}
    depth = 0
    for number, row in enumerate(text.split("\n"), 1):
        header = _HEADER.fullmatch(row) if depth == 0 else None
        if header:
            table = _resolve(_parts(header[2]), counts)
            if header[1] == "[[":
                index = counts.get(table, -1) + 1
                counts[table] = index
                table = (*table, index)
            yield table, number
            continue
        if depth == 0 and "=" in row:
            yield (*table, *_parts(row.split("=", 1)[0])), number
        depth += sum(row.count(mark) for mark in "[{") - sum(row.count(mark) for mark in "]}")


def _resolve(parts: Path, counts: dict[Path, int]) -> Path:
    """A header's path, its arrays of tables pointing at their newest element."""
    path: Path = ()
    for place, part in enumerate(parts):
        path = (*path, part)
        if path in counts and place < len(parts) - 1:
            path = (*path, counts[path])
    return path


def _parts(key: str) -> Path:
    return tuple(found[1] or found[2] or found[3] or "" for found in _PART.finditer(key))


def _without_values(text: str) -> str:
    """The text with comments gone and strings that are values emptied, its lines kept."""
    kept: list[str] = []
    place = 0
    while place < len(text):
        string = _STRING.match(text, place) if text[place] in "\"'" else None
        if string:
            kept.append(string[0] if _is_key(text, string.end()) else "\n" * string[0].count("\n"))
            place = string.end()
        elif text[place] == "#":
            place = text.find("\n", place) if "\n" in text[place:] else len(text)
        else:
            kept.append(text[place])
            place += 1
    return "".join(kept).replace("\r\n", "\n")


def _is_key(text: str, end: int) -> bool:
    return re.match(r"[ \t]*[.=\]]", text[end : end + 64]) is not None
