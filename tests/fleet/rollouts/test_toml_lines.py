import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rollouts.toml_lines import Path, line_of

TEXT = '''\
a = 1
"b c" = 2  # d = 3
e.f = 4
long = """
a = 5
[x]
"""
list = [
  1,
]
[x]
g = "h = 1"
[[y]]
i = 1
[[y]]
i = 2
[y.z]
j = {k = 1}
[after]
l = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("b c",), 2),
        (("d",), None),
        (("e", "f"), 3),
        (("long",), 4),
        (("list", 0), 8),
        (("x",), 11),
        (("x", "g"), 12),
        (("h",), None),
        (("y", 0, "i"), 14),
        (("y", 1), 15),
        (("y", 1, "i"), 16),
        (("y", 1, "z", "j", "k"), 18),
        (("after", "l"), 20),
        (("none",), None),
        ((), None),
    ],
)
def test_a_key_is_found_on_its_line(path: Path, line: int | None) -> None:
    tomllib.loads(TEXT)
    assert line_of(TEXT, path) == line


KEYS = st.text("abcdefgh", min_size=1, max_size=3)


@given(
    st.dictionaries(KEYS, st.integers(), max_size=5),
    st.lists(st.dictionaries(KEYS, st.integers(), max_size=3), max_size=4),
)
def test_every_key_that_is_written_is_found(
    top: dict[str, int], rows: list[dict[str, Any]]
) -> None:
    lines, where = [], {}
    for key, value in top.items():
        lines.append(f"{key} = {value}")
        where[key,] = len(lines)
    for index, row in enumerate(rows):
        lines.append("[[rows]]")
        where["rows", index] = len(lines)
        for key, value in row.items():
            lines.append(f"{key} = {value}")
            where["rows", index, key] = len(lines)
    for path, line in where.items():
        assert line_of("\n".join(lines), path) == line


@given(st.text("[]{}\"'\\\n\r=.# ab", max_size=80), st.tuples(st.sampled_from("ab")))
def test_any_text_is_scanned_without_fault(text: str, path: Path) -> None:
    line = line_of(text, path)
    assert line is None or 1 <= line <= text.count("\n") + 1
