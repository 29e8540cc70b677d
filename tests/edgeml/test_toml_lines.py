"""The line of a key in a TOML text."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.toml_lines import line_of

TEXT = '''# a = 1
a = 1
"b c" = """
a = 2
"""
list = [
    1, # list
    2,
]
[table.inner]
a = { x = 1, y = [3] }

[[steps]]
a = 1
[[steps]]
# a = 2
a.b = 2
[steps.deep]
a = 3
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 2),
        (("b c",), 3),
        (("list",), 6),
        (("list", 1), 6),
        (("table", "inner"), 10),
        (("table", "inner", "a", "y", 0), 11),
        (("steps", 0, "a"), 14),
        (("steps", 1), 15),
        (("steps", 1, "a", "b"), 17),
        (("steps", 1, "deep", "a"), 19),
        (("steps", 1, "missing"), 15),
    ],
)
def test_a_key_is_found_where_toml_has_it(path: tuple[str | int, ...], line: int) -> None:
    assert line_of(TEXT, path) == line


@pytest.mark.parametrize("path", [(), ("missing",)])
def test_what_is_nowhere_has_no_line(path: tuple[str, ...]) -> None:
    assert line_of(TEXT, path) is None


def test_a_value_over_more_lines_than_are_worth_it_has_no_line() -> None:
    rows = "\n".join(f"k{i} = 1" for i in range(500))
    assert line_of(f'text = """\n{rows}\n"""\nlast = 1\n', ("last",)) is None


@given(st.text(alphabet="ab[]=\"'\n{}#.,1 \\", max_size=80))
def test_any_valid_toml_has_a_line_for_each_of_its_keys(text: str) -> None:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        line_of(text, ("a",))
        return
    for key in tree:
        line = line_of(text, (key,))
        assert line is not None
        assert 1 <= line <= text.count("\n") + 1
