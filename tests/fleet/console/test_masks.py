import dataclasses
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import UserError
from fleet.console.masks import hide_passwords, without_passwords

ADDRESS, HIDDEN = "rtsp://viewer:secret@10.0.0.7/1", "rtsp://***@10.0.0.7/1"


class Source(msgspec.Struct, frozen=True):
    uri: str
    fps: float = 10.0


@dataclasses.dataclass(frozen=True)
class Line:
    name: str
    sources: tuple[Source, ...]


class Pair(NamedTuple):
    one: str
    other: int


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (ADDRESS, HIDDEN),
        ({"sources": [{"uri": ADDRESS}]}, {"sources": [{"uri": HIDDEN}]}),
        ({ADDRESS: 1}, {HIDDEN: 1}),
        ((ADDRESS, 7), (HIDDEN, 7)),
        (Pair(ADDRESS, 7), Pair(HIDDEN, 7)),
        (Source(ADDRESS), Source(HIDDEN)),
        (Line("belt", (Source(ADDRESS),)), Line("belt", (Source(HIDDEN),))),
    ],
)
def test_passwords_are_hidden_wherever_they_are(value: Any, shown: Any) -> None:
    assert without_passwords(value) == shown


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="ab/ @?"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="ab"), inner),
)


@given(PLAIN)
def test_what_has_no_address_is_the_very_same(value: Any) -> None:
    assert without_passwords(value) is value


def test_an_error_says_no_password() -> None:
    error = hide_passwords(UserError("No camera.", why=f"{ADDRESS} is silent.", fix="Ask."))
    assert str(error) == f"No camera. {HIDDEN} is silent. Ask."
