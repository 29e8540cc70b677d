"""Messages: what is sent comes back, what is not a message is refused with a sentence."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.commands import Command, CommandResult
from cloud_sync.messages import (
    MAX_MESSAGE_BYTES,
    Ack,
    Batch,
    DesiredState,
    Down,
    Enrolled,
    EnrollRequest,
    Gap,
    Hello,
    Presence,
    StateRecord,
    UnknownVersion,
    Up,
    Window,
    decode,
    encode,
    topic,
)
from edgeml.errors import RemoteError

KINDS = (
    Hello, Batch, Ack, Command, DesiredState, Presence, EnrollRequest, Enrolled,
    StateRecord, Window, Gap, CommandResult,
)  # fmt: skip
CHOICES = {"phase": "idle", "status": "done"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def example(kind: type[msgspec.Struct]) -> Any:
    """The smallest message of a kind, as JSON values."""
    samples: dict[Any, Any] = {str: "x", int: 1, float: 1.0, bool: True}
    made = {}
    for field in msgspec.structs.fields(kind):
        if field.required:
            of = getattr(field.type, "__origin__", field.type)
            is_struct = isinstance(of, type) and issubclass(of, msgspec.Struct)
            made[field.encode_name] = example(of) if is_struct else samples.get(of, [])
    return made | {key: value for key, value in CHOICES.items() if key in made}


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_message_of_each_kind_goes_there_and_back(kind: type[msgspec.Struct]) -> None:
    message = decode(msgspec.json.encode(example(kind)), kind)
    assert decode(encode(message), kind) == message


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_error(kind: type[msgspec.Struct], data: bytes) -> None:
    with contextlib.suppress(RemoteError):
        decode(data, kind)


@given(st.sampled_from(KINDS), st.data())
def test_no_changed_value_raises_anything_but_our_error(
    kind: type[msgspec.Struct], data: st.DataObject
) -> None:
    document = example(kind)
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    for _ in range(data.draw(st.integers(1, 3))):
        document[data.draw(st.sampled_from(names))] = data.draw(JSON)
    with contextlib.suppress(RemoteError):
        message = decode(msgspec.json.encode(document), kind)
        assert decode(encode(message), kind) == message


@given(st.sampled_from(KINDS), st.data())
def test_no_damaged_byte_raises_anything_but_our_error(
    kind: type[msgspec.Struct], data: st.DataObject
) -> None:
    good = bytearray(msgspec.json.encode(example(kind)))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteError):
        decode(bytes(good[: data.draw(st.integers(0, len(good)))]), kind)


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000, b'"\\ud800"', b"\xff", b"1e999"]
)
def test_what_breaks_other_parsers_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError, match="could not be read"):
        decode(data, Ack)


def test_an_unknown_version_is_refused_and_unknown_fields_pass() -> None:
    ack = example(Ack)
    assert decode(msgspec.json.encode({**ack, "later": {"x": [1]}}), Ack).through == 1
    with pytest.raises(RemoteError, match="version 9"):
        decode(msgspec.json.encode({**ack, "version": 9}), Ack)


def test_a_version_is_known_before_what_it_holds_is_looked_at() -> None:
    later = msgspec.json.encode({"version": 2, "device": ["another", "shape"]})
    for kind in (Hello, Batch, Ack, Command, DesiredState, Presence, EnrollRequest, Enrolled):
        with pytest.raises(UnknownVersion, match="of version 2 was refused"):
            decode(later, kind)


def bounded(found: Any) -> bool:
    """Whether a type's values have a largest one: its texts, lists and tables."""
    inner = {"item_type", "key_type", "value_type", "types", "item_types"}
    of_many = msgspec.inspect.CollectionType | msgspec.inspect.DictType
    is_many = isinstance(found, msgspec.inspect.StrType | of_many)
    is_bounded = not is_many or found.max_length is not None
    below = [getattr(found, name) for name in inner if hasattr(found, name)]
    flat = [each for one in below for each in (one if isinstance(one, tuple) else (one,))]
    return is_bounded and all(bounded(each) for each in flat)


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_and_list_has_a_bound_of_its_own(kind: type[msgspec.Struct]) -> None:
    found = msgspec.inspect.type_info(kind)
    assert isinstance(found, msgspec.inspect.StructType)
    loose = [f.name for f in found.fields if not bounded(f.type)]
    assert not loose


def test_a_message_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(RemoteError, match="limit"):
        decode(b" " * (MAX_MESSAGE_BYTES + 1), Ack)


def test_topics_are_those_of_the_wire() -> None:
    assert topic("cam-1", Up.HELLO) == "edgeml/v1/cam-1/up/hello"
    assert topic("cam-1", Down.DESIRED) == "edgeml/v1/cam-1/down/desired"
