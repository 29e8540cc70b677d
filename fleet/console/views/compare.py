"""Two releases side by side: the files, the figures, the field. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fleet.console.views.releases import Figures, VariantRow, origin
from fleet.console.views.wording import number
from fleet.services.metrics import MetricPoint

_BETTER_LESS, _BETTER_MORE = -1, 1
_SLIGHT = 0.005
_NOTHING = frozenset({"unknown", "not measured"})
_FIELD = "In the field, the last 24 hours"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both releases, and how the second differs."""

    name: str
    one: str
    other: str
    difference: str
    tone: str


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """The lines about one variant, or about what both releases do in the field."""

    title: str
    note: str
    lines: tuple[Line, ...]


def variants(one: Sequence[VariantRow], other: Sequence[VariantRow]) -> tuple[Pair, ...]:
    """The variants of two releases for the same target and precision; then what one alone has."""
    left = {(row.target, row.precision): row for row in one}
    right = {(row.target, row.precision): row for row in other}
    return tuple(
        _pair(" ".join(key), left.get(key), right.get(key)) for key in sorted({*left, *right})
    )


def _pair(title: str, one: VariantRow | None, other: VariantRow | None) -> Pair:
    if one is None or other is None:
        note = "Only the second release has it." if one is None else "The second has none such."
        return Pair(title=title, note=note, lines=())
    a, b = one.figures, other.figures
    lines = [
        Line(
            name="Accuracy",
            one=one.accuracy,
            other=other.accuracy,
            difference=_apart(a, b),
            tone=_accuracy_tone(a, b),
        ),
        _line("Size", one.bytes, other.bytes, (one.size, other.size), _BETTER_LESS),
        _line("Latency p50", a.p50_ms, b.p50_ms, (_ms(a.p50_ms), _ms(b.p50_ms)), _BETTER_LESS),
        _line("Latency p95", a.p95_ms, b.p95_ms, (_ms(a.p95_ms), _ms(b.p95_ms)), _BETTER_LESS),
        _line(
            "Memory", a.memory or None, b.memory or None, (one.memory, other.memory), _BETTER_LESS
        ),
        Line(name="Checked", one=one.checked, other=other.checked, difference="", tone="idle"),
    ]
    known = tuple(line for line in lines if {line.one, line.other} - _NOTHING)
    missing = ", ".join(line.name.lower() for line in lines if line not in known)
    note = f"Measured of neither: {missing}." if missing else ""
    return Pair(title=title, note=note, lines=known)


def field(one: MetricPoint | None, other: MetricPoint | None) -> Pair:
    """What two releases do on devices; of the same hours, on whatever devices had them."""
    a, b = _of(one), _of(other)
    names = (
        ("Latency p95", "p95_ms", _ms, _BETTER_LESS),
        ("Errors", "error_rate", _percent, _BETTER_LESS),
        ("Confident", "confident", _percent, _BETTER_MORE),
        ("Results", "inferred", _count, 0),
    )
    if not a and not b:
        return Pair(title=_FIELD, note="Neither was on a device in that time.", lines=())
    lines = tuple(
        _line(name, a.get(key), b.get(key), (say(a.get(key)), say(b.get(key))), better)
        for name, key, say, better in names
    )
    note = "Not on the same devices: a difference may be theirs. A rollout's gates compare fairly."
    return Pair(title=_FIELD, note=note, lines=lines)


def made_of(one: Mapping[str, Any], other: Mapping[str, Any]) -> Pair:
    """What two releases were made of: the same, or not."""
    a, b = dict(origin(one)), dict(origin(other))
    lines = tuple(
        Line(
            name=name,
            one=a.get(name, "not known"),
            other=b.get(name, "not known"),
            difference="the same" if a.get(name) == b.get(name) else "another",
            tone="idle" if a.get(name) == b.get(name) else "busy",
        )
        for name in dict.fromkeys([*a, *b])
    )
    return Pair(title="Made of", note="" if lines else "No recipe came with them.", lines=lines)


def _line(name: str, a: float | None, b: float | None, said: tuple[str, str], better: int) -> Line:
    difference, tone = "", "idle"
    if a and b is not None:
        change = (b - a) / a
        difference = "the same" if a == b else f"{change:+.1%}"
        if a != b and abs(change) < _SLIGHT:
            difference = "nearly the same"
        elif better and a != b:
            tone = "good" if (change > 0) is (better > 0) else "warn"
    return Line(
        name=name,
        one=said[0] or "unknown",
        other=said[1] or "unknown",
        difference=difference,
        tone=tone,
    )


def _apart(a: Figures, b: Figures) -> str:
    """Whether two intervals are apart: where they overlap, nobody can say."""
    if None in (a.low, a.high, b.low, b.high, a.accuracy, b.accuracy):
        return ""
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None  # noqa: PT018
    assert a.accuracy is not None and b.accuracy is not None  # noqa: PT018
    is_share = 0 <= min(a.low, b.low) <= max(a.high, b.high) <= 1
    change = (b.accuracy - a.accuracy) * (100 if is_share else 1)
    unit = " points" if is_share else ""
    overlap = a.low <= b.high and b.low <= a.high
    return f"{change:+.2f}{unit}" + (", the intervals overlap" if overlap else "")


def _accuracy_tone(a: Figures, b: Figures) -> str:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return "idle"
    if b.high < a.low:
        return "bad"
    return "good" if b.low > a.high else "idle"


def _of(point: MetricPoint | None) -> dict[str, float | None]:
    if point is None:
        return {}
    share = point["confident"] / point["inferred"] if point["inferred"] else None
    return {
        "p95_ms": point["p95_ms"],
        "error_rate": point["error_rate"],
        "confident": share,
        "inferred": float(point["inferred"]),
    }


def _ms(value: float | None) -> str:
    return number(value, "ms") if value is not None else ""


def _percent(value: float | None) -> str:
    return f"{value:.2%}" if value is not None else ""


def _count(value: float | None) -> str:
    return f"{value:,.0f}" if value is not None else ""
