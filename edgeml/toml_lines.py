r"""Finds the line on which a key of a TOML text stands, so that an error can name it.

`tomllib` forgets where values stood. This reads the text statement by statement, each with
`tomllib` itself, so that quoted keys, inline tables and values over several lines are where
TOML says they are.

    >>> line_of("version = 1\n[[pre]]\nop = 'resize'\nwidth = 0\n", ("pre", 0, "width"))
    4
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

_BEGINS = re.compile(r"""\s*(?:\[|["'A-Za-z0-9_-][^=]*=)""")
# A value over more lines that look like statements than this is not worth the time.
_LONGEST = 50


def line_of(text: str, path: Path) -> int | None:
    """The line, counted from 1, of the key at `path`, or of the nearest table around it."""
    lines: dict[Path, int] = {}
    for found, line in _places(text):
        lines.setdefault(found, line)
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)


def _places(text: str) -> Iterator[tuple[Path, int]]:
    table: Path = ()
    counts: dict[Path, int] = {}
    for line, tree, is_header in _statements(text):
        if not is_header:
            yield from ((path, line) for path in _paths(tree, table))
            continue
        table = ()
        inner: Any = tree
        while isinstance(inner, dict) and inner:
            [(name, inner)] = inner.items()
            table = (*table, name)
            if inner and isinstance(inner, list):
                counts[table] = counts.get(table, -1) + 1
                yield table, line
            if table in counts:
                table = (*table, counts[table])
        yield table, line


def _statements(text: str) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Every header and every `key = value`, with its line."""
    rows = text.split("\n")
    begins = [number for number, row in enumerate(rows) if _BEGINS.match(row)]
    at = 0
    while at < len(begins):
        for end in range(at + 1, min(at + _LONGEST, len(begins)) + 1):
            until = begins[end] if end < len(begins) else len(rows)
            statement = "\n".join(rows[begins[at] : until])
            try:
                tree = tomllib.loads(statement)
            except (ValueError, RecursionError):
                continue
            yield begins[at] + 1, tree, statement.lstrip().startswith("[")
            break
        else:
            return
        at = end


def _paths(value: object, path: Path) -> Iterator[Path]:
    if path:
        yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _paths(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, (*path, index))
