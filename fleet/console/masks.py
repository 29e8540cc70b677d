"""What viewers do not read on pages, as in the REST API: the passwords in addresses."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from edgeml.errors import EdgemlError
from fleet.access.masking import masked

T = TypeVar("T")


def without_passwords(value: T) -> T:
    """A value as it is, but for the passwords of the addresses in its texts, however deep.

    >>> without_passwords({"uri": "rtsp://viewer:secret@10.0.0.7/1", "fps": 10})
    {'uri': 'rtsp://***@10.0.0.7/1', 'fps': 10}
    """
    found: Any = _without(value)
    return found  # type: ignore[no-any-return]


def hide_passwords(error: EdgemlError) -> EdgemlError:
    """The same for what an error says; changes it."""
    error.what, error.why, error.fix = map(masked, (error.what, error.why, error.fix))
    return error


def _without(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value) if "://" in value else value
    if isinstance(value, Mapping):
        made = {_without(name): _without(one) for name, one in value.items()}
        return made if made != value else value
    if isinstance(value, list | tuple):
        items = [_without(one) for one in value]
        return value if all(map(_is, items, value)) else _again(value, items)
    if isinstance(value, msgspec.Struct):
        changed = _changed(value, value.__struct_fields__)
        return msgspec.structs.replace(value, **changed) if changed else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = _changed(value, [field.name for field in dataclasses.fields(value) if field.init])
        return dataclasses.replace(value, **changed) if changed else value
    return value


def _changed(value: Any, names: Any) -> dict[str, Any]:
    held = {name: getattr(value, name) for name in names}
    made = {name: _without(one) for name, one in held.items()}
    return {name: one for name, one in made.items() if one is not held[name]}


def _again(value: Any, items: list[Any]) -> Any:
    return value._make(items) if hasattr(value, "_make") else type(value)(items)


def _is(one: Any, other: Any) -> bool:
    return one is other
