"""The small plot beside a gate: value, interval, baseline and bound on one scale. Pure."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

# Gates whose value has to reach the bound; all others have to stay below it.
_AT_LEAST = ("confident_share", "committed", "accuracy", "agreement")
_HEADROOM = 1.2
_EDGE = 2.0


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """Positions in per cent of the width; `allowed` is the part of the scale that passes."""

    value: float
    bound: float
    allowed: tuple[float, float]
    interval: tuple[float, float] | None = None
    baseline: float | None = None


def wants_at_least(name: str) -> bool:
    """Whether a gate's value has to reach its bound, rather than stay below it."""
    return name.endswith(_AT_LEAST)


def plot_of(gate: Mapping[str, Any]) -> Plot | None:
    """The plot of a gate; None where there is nothing to see on a scale."""
    value, bound = gate.get("value"), gate.get("bound")
    if value is None or bound is None:
        return None
    low, high, baseline = gate.get("low"), gate.get("high"), gate.get("baseline")
    numbers = [n for n in (value, bound, low, high, baseline) if n is not None]
    top = max(numbers)
    if min(numbers) < 0 or top <= 0 or not all(math.isfinite(n) for n in numbers):
        return None
    is_share = wants_at_least(gate["name"]) and top <= 1 and not gate.get("unit")
    scale, room = (1.0, 1.0) if is_share else (top, _HEADROOM)

    def place(number: float) -> float:
        return round(_EDGE + (100 - 2 * _EDGE) * (number / scale) / room, 2)

    at = place(bound)
    return Plot(
        value=place(value),
        bound=at,
        allowed=(at, 100.0) if wants_at_least(gate["name"]) else (0.0, at),
        interval=(place(low), place(high)) if low is not None and high is not None else None,
        baseline=place(baseline) if baseline is not None else None,
    )
