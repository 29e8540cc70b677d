"""Sizes and times as people write them: `4MB`, `1.5 GiB`, `200ms`.

>>> parse_bytes("4MB"), parse_bytes("1.5 KiB"), parse_ms("0.2s")
(4000000, 1536, 200.0)
"""

import math
import re
from collections.abc import Mapping

from edgeml.errors import UserError

_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9} | {
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def parse_bytes(text: str) -> int:
    """A size in bytes; it must have its unit.

    Raises:
        UserError: it is no size above zero.
    """
    return math.floor(_parse(text, _BYTES, "size", "4MB"))


def parse_ms(text: str) -> float:
    """A time in milliseconds; it must have its unit.

    Raises:
        UserError: it is no time above zero.
    """
    return _parse(text, _MILLISECONDS, "time", "200ms")


def _parse(text: str, units: Mapping[str, float], kind: str, example: str) -> float:
    matched = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text, re.ASCII)
    value = float(matched[1]) * units.get(matched[2], 0) if matched else 0.0
    if not (math.isfinite(value) and value >= min(units.values())):
        raise UserError(
            f"{text!r} is no {kind}.",
            why=f"It is a number above zero and one of {', '.join(units)}, such as {example}.",
        )
    return value
