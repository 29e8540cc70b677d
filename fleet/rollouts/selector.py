"""Kubernetes label selectors: `site=north,tier in (edge, dev),!retired`.

Source: Kubernetes documentation, "Labels and Selectors", and the grammar in
`apimachinery/pkg/labels/selector.go`: equality-based (`=`, `==`, `!=`), set-based (`in`,
`notin`, existence) and numeric (`>`, `<`) requirements joined by commas, all of which must
hold. `key!=value` and `notin` hold for a device without the key, too.

    >>> parse_selector("site=north,!retired").matches({"site": "north"})
    True
"""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from edgeml.errors import UserError

Operator = Literal["in", "notin", "exists", "absent", "gt", "lt"]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_KEY = rf"(?:{_PREFIX}/)?{_NAME}"
_VALUE = rf"(?:{_NAME})?"
_EQUAL = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_ORDER = re.compile(rf"({_KEY})\s*([<>])\s*(-?[0-9]{{1,18}})")
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_MAX_LENGTH = 4096
# Each is a query of its own within the database's one.
_MAX_REQUIREMENTS = 64
_MAX_LABELS = 64


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """One condition on one label."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it; a label that is no integer is never above or below one."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case "gt" | "lt":
                if value is None or not _INTEGER.fullmatch(value):
                    return False
                bound = int(self.values[0])
                return int(value) > bound if self.operator == "gt" else int(value) < bound

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "absent":
                return f"!{self.key}"
            case "gt" | "lt":
                return f"{self.key}{'>' if self.operator == 'gt' else '<'}{self.values[0]}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"


class Selector(msgspec.Struct, frozen=True, kw_only=True):
    """Requirements that must all hold; none of them selects everything."""

    text: str = ""
    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING = Selector()


def parse_selector(text: str) -> Selector:
    """Parse a selector; an empty one selects everything.

    Raises:
        UserError: it is none; names the part.
    """
    if len(text) > _MAX_LENGTH:
        raise UserError("The selector is too long.", why=f"{_MAX_LENGTH} characters are allowed.")
    parts = re.split(r",(?![^(]*\))", text) if text.strip() else []
    if len(parts) > _MAX_REQUIREMENTS:
        raise UserError(
            "The selector has too many parts.", why=f"{_MAX_REQUIREMENTS} of them are allowed."
        )
    return Selector(text=text, requirements=tuple(_requirement(part.strip()) for part in parts))


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels if they can be labels.

    Raises:
        UserError: a key or value is not allowed, or there are too many.
    """
    if len(labels) > _MAX_LABELS:
        raise UserError(f"{len(labels)} labels are too many.", fix=f"Give up to {_MAX_LABELS}.")
    for key, value in labels.items():
        if not re.fullmatch(_KEY, key) or not re.fullmatch(_VALUE, value):
            raise UserError(
                f"The label {key[:64]}={value[:64]} is not allowed.",
                fix="Use letters, digits and . _ - in keys and values, such as site=north.",
            )
    return dict(labels)


def _requirement(part: str) -> Requirement:
    if found := _EQUAL.fullmatch(part):
        operator: Operator = "notin" if found[2] == "!=" else "in"
        return Requirement(key=found[1], operator=operator, values=(found[3],))
    if found := _ORDER.fullmatch(part):
        order: Operator = "gt" if found[2] == ">" else "lt"
        return Requirement(key=found[1], operator=order, values=(found[3],))
    if found := _SET.fullmatch(part):
        values = tuple(value.strip() for value in found[3].split(","))
        if found[3].strip() and all(re.fullmatch(_VALUE, value) for value in values):
            return Requirement(
                key=found[1], operator="in" if found[2] == "in" else "notin", values=values
            )
    elif found := _EXISTS.fullmatch(part):
        return Requirement(key=found[2], operator="absent" if found[1] else "exists")
    raise UserError(
        f"The selector's part {part[:80]!r} cannot be read.",
        fix="Write key=value, key!=value, key in (a, b), key notin (a, b), key>1, key or !key.",
    )
