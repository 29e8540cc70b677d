"""The report's charts: numbers in, inline SVG out, drawn by matplotlib.

Text stays text and colours are the page's own (`var(--good)`), so that a chart follows the
reader's theme. Charts are 380 units wide, which is a phone's width, and are set side by side
where there is room. The same numbers give the same bytes.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import msgspec
import numpy as np

from cloud_sync.evidence import Alternative, GateResult, Verdict
from converters.report.words import number, one_line, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from converters.methods import NodeLoss

WIDTH = 380
MOST_NODES = 20
_LEFT, _RIGHT, _TOP, _BOTTOM = 12, 16, 8, 46
_LABEL_CHARACTERS = 48
_BEYOND = 3  # times the allowed drop: what lies further down is drawn at the edge
_MOST_DB = 80.0
_LEAST_DB = -20.0
_TAIL = 1.25  # times p95: how far the slowest are followed
_HOPELESS = 20.0  # times what there is: not drawn
_DPI = 72  # one unit of the drawing is then one pixel of CSS

# Stand-ins for the page's colours while matplotlib draws.
_INK, _SOFT, _LINE = "#000001", "#000002", "#000003"
_GOOD, _BAD, _WARN, _BUSY = "#000004", "#000005", "#000006", "#000007"
_GOOD_TINT, _CARD = "#000008", "#000009"
_COLOURS: Final = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    _GOOD: "var(--good)",
    _BAD: "var(--bad)",
    _WARN: "var(--warn)",
    _BUSY: "var(--busy)",
    _GOOD_TINT: "var(--good-tint)",
    _CARD: "var(--card)",
}
_OF_VERDICT: Final = {Verdict.PASS: _GOOD, Verdict.FAIL: _BAD, Verdict.UNDECIDED: _WARN}
_FILL: Final = {Verdict.PASS: "full", Verdict.FAIL: "none", Verdict.UNDECIDED: "left"}
_SHAPES = ("o", "s", "^", "D")


class Whisker(msgspec.Struct, frozen=True, kw_only=True):
    """A score with its interval; with a `gate`, beside what it was compared with."""

    label: str
    runtime: str
    value: float
    low: float
    high: float
    gate: GateResult | None = None


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of one lane in milliseconds."""

    label: str
    milliseconds: tuple[float, ...]
    is_float: bool


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """Something tried: how fast, relative to the reference, and how many points it lost.

    `verdict` is None for float32, which is compared with itself.
    """

    label: str
    runtime: str
    speed: float
    drop: float
    verdict: Verdict | None


@contextmanager
def _own_style() -> Iterator[None]:
    """Matplotlib as it comes, whatever the user's settings are, text as text."""
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore")  # of glyphs that only the browser's fonts have
        mpl.rcdefaults()
        mpl.rcParams.update(
            {"svg.fonttype": "none", "svg.hashsalt": "edgeml", "text.parse_math": False}
        )
        yield


@_own_style()
def accuracy_chart(rows: Sequence[Whisker], *, max_drop: float, title: str) -> str:
    """Scores in per cent with intervals, what was allowed to be lost shaded."""
    gates = [row.gate for row in rows if row.gate is not None]
    floor = min((g.bound or 0.0 for g in gates), default=0.0) - _BEYOND * max_drop
    lows = [
        max(row.low, floor) if row.gate and row.gate.result is Verdict.FAIL else row.low
        for row in rows
    ]
    highs = [row.high for row in rows] + [g.baseline or 0.0 for g in gates]
    margin = 0.06 * ((max(highs) - min(lows)) or 0.01)
    left, right = 100 * (min(lows) - margin), 100 * (max(highs) + margin)
    figure, axes = _rows(len(rows), 52)
    axes.set_xlim(left, right)
    for place, row in enumerate(rows):
        _label(axes, place, row.label, "", above=0.32)
        _label(axes, place, row.runtime, f"{100 * row.value:.2f} %", above=0.04)
        colour = _SOFT
        if row.gate is not None:
            colour = _OF_VERDICT[row.gate.result]
            base = 100 * (row.gate.baseline or 0.0)
            axes.fill_betweenx(
                [place + 0.08, place + 0.5], base - 100 * max_drop, base, color=_GOOD_TINT, lw=0
            )
            axes.plot([base, base], [place + 0.08, place + 0.5], color=_SOFT, lw=1.5)
        y = place + 0.29
        if 100 * row.value < left:
            axes.plot([left], [y], "<", color=colour, ms=8, clip_on=False)
            continue
        axes.plot([100 * row.low, 100 * row.high], [y, y], color=colour, lw=2.5)
        for end in (row.low, row.high):
            axes.plot([100 * end] * 2, [y - 0.1, y + 0.1], color=colour, lw=1.5)
        _dot(axes, 100 * row.value, y, row.gate.result if row.gate else None)
    axes.set_xlabel("per cent; green: what may be lost; grey: float32" if gates else "per cent")
    return _svg(figure, title)


@_own_style()
def latency_chart(rows: Sequence[Spread], *, title: str) -> str:
    """How each lane's latencies are spread, on one scale from zero."""
    figure, axes = _rows(len(rows), 58)
    most = 0.0
    for place, row in enumerate(rows):
        times = np.array(row.milliseconds)
        p50, p95, p99 = (float(p) for p in np.percentile(times, [50, 95, 99]))
        most = max(most, min(p99, _TAIL * p95))
        colour = _SOFT if row.is_float else _BUSY
        y = place + 0.2
        body = axes.violinplot(
            [times[times <= p99]],
            [y],
            orientation="horizontal",
            widths=0.5,
            showextrema=False,
            points=200,
        )
        for patch in body["bodies"]:  # type: ignore[attr-defined]  # typed as a single artist
            patch.set(facecolor=colour, edgecolor=colour, alpha=0.45, linewidth=1)
        axes.plot([p50, p50], [y - 0.25, y + 0.25], color=_INK, lw=2)
        axes.plot([p95, p95], [y - 0.14, y + 0.14], color=colour, lw=2)
        _label(axes, place, row.label, f"p50 {number(p50)} · p95 {number(p95)}", room=28)
    axes.set_xlim(0, 1.06 * most or 1.0)
    axes.set_xlabel("milliseconds an inference; long bar: p50, short bar: p95")
    return _svg(figure, title)


@_own_style()
def pareto_chart(points: Sequence[Point], *, max_drop: float, reference: str, title: str) -> str:
    """Speed against lost accuracy, the best of both at the top right, with the front."""
    figure, axes = _axes(300, bottom=50, left=46)
    shown = [100 * p.drop for p in points]
    floor = min(max([*shown, 1.6 * 100 * max_drop]), _BEYOND * 100 * max_drop)
    top = min([*shown, 0.0])
    span = floor - top
    axes.set_ylim(floor + 0.1 * span, top - 0.2 * span)
    fastest = max(p.speed for p in points)
    axes.set_xlim(0, 1.15 * max(fastest, 1.0))
    axes.axhspan(100 * max_drop, top - 0.2 * span, color=_GOOD_TINT, lw=0)
    axes.axvline(1.0, color=_LINE, lw=1)
    front = [(p.speed, min(100 * p.drop, floor)) for p in pareto_front(points)]
    stairs = [(front[0][0], floor + span), *front, (0.0, front[-1][1])]
    axes.step(*zip(*stairs, strict=True), where="post", color=_BUSY, lw=1.5, alpha=0.8)
    runtimes = list(dict.fromkeys(p.runtime for p in points))
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p.verdict is not None, p.drop, p.speed)):
        drop = min(100 * point.drop, floor)
        shape = _SHAPES[runtimes.index(point.runtime) % len(_SHAPES)]
        _dot(axes, point.speed, drop, point.verdict, shape)
        text = point.label if drop == 100 * point.drop else f"{point.label}: {100 * point.drop:.3g}"
        _beside(axes, point.speed, drop, text, taken, up=point.verdict is None)
    axes.grid(visible=True, color=_LINE, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(one_line(f"x the speed of {reference}"))
    axes.set_ylabel("points lost; green: allowed")
    return _svg(figure, title)


def _beside(
    axes: "Axes", x: float, y: float, text: str, taken: list[tuple[float, float]], *, up: bool
) -> None:
    """Write beside a dot, or above it, where nothing has been written yet."""
    across, down = axes.transData.transform((x, y))
    across, down = (across - 8, down + 9) if up else (across + 8, down - 4)
    width, height = 7 * len(text) + 4, 12
    while any(abs(across - a) < width and abs(down - b) < height for a, b in taken):
        down += 3 if up else -3
    taken.append((across, down))
    x, y = axes.transData.inverted().transform((across, down))
    axes.text(x, y, text, color=_INK, fontsize=11)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both speed and accuracy, the fastest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.speed, p.drop)):
        if not front or point.drop < front[-1].drop:
            front.append(point)
    return front


@_own_style()
def tradeoff_chart(found: Sequence[Alternative], *, title: str) -> str:
    """Latency against the fullest resource's share, the best of both at the bottom left.

    Filled is the chosen one, half filled what no other beats, hollow the others.
    """
    from matplotlib.ticker import LogLocator

    figure, axes = _axes(260, bottom=50, left=56)
    shown = [
        (each, each.latency_ms, 100 * each.share)
        for each in found
        if each.latency_ms is not None and each.share is not None and each.share < _HOPELESS
    ]
    times, shares = [time for _, time, _ in shown], [share for _, _, share in shown]
    least = 0.7 * min(shares)
    axes.set(xscale="log", yscale="log")
    axes.set_xlim(min(times) / 2, max(times) * 4)
    axes.set_ylim(least, 1.5 * max(100.0, *shares))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter("")
    axes.axhspan(least, 100, color=_GOOD_TINT, lw=0)
    taken: list[tuple[float, float]] = []
    for each, time, share in shown:
        fill = Verdict.PASS if each.chosen else Verdict.UNDECIDED if each.best else Verdict.FAIL
        axes.plot(
            [time],
            [share],
            "o",
            color=_GOOD if each.chosen else _BUSY if each.best else _SOFT,
            fillstyle=_FILL[fill],
            markerfacecoloralt=_CARD,
            ms=8,
            clip_on=False,
        )
        _beside(axes, time, share, each.short, taken, up=False)
    axes.grid(visible=True, color=_LINE, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("ms an inference, estimated")
    axes.set_ylabel("% of the fullest resource")
    return _svg(figure, title)


def most_sensitive(losses: Sequence["NodeLoss"]) -> list["NodeLoss"]:
    """The nodes that a chart shows."""
    return sorted(losses, key=lambda loss: (loss.sqnr_db, loss.name))[:MOST_NODES]


@_own_style()
def sensitivity_chart(losses: Sequence["NodeLoss"], *, title: str) -> str:
    """The most sensitive nodes; a short bar is a node that loses much."""
    worst = most_sensitive(losses)
    values = [min(max(loss.sqnr_db, _LEAST_DB), _MOST_DB) for loss in worst]
    figure, axes = _rows(len(worst), 30)
    names = _without_common_folders([loss.name for loss in worst])
    for place, (loss, value) in enumerate(zip(worst, values, strict=True)):
        _label(axes, place, names[place], f"{loss.operator} {loss.sqnr_db:.1f} dB")
        axes.barh([place + 0.24], [value], height=0.22, color=_BUSY)
    axes.set_xlim(min(0.0, *values), max(1.0, *values) * 1.02)
    axes.set_xlabel("signal to quantization noise in dB: less is worse")
    return _svg(figure, title)


def _without_common_folders(names: Sequence[str]) -> list[str]:
    """Names of nodes without the folders, at their start, that all of them are in."""
    parts = [name.split("/") for name in names]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return ["/".join(p[shared:]) for p in parts]


def _axes(height: int, *, bottom: int = _BOTTOM, left: int = _LEFT) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / _DPI, height / _DPI), dpi=_DPI)
    axes = figure.add_axes(
        (
            left / WIDTH,
            bottom / height,
            (WIDTH - left - _RIGHT) / WIDTH,
            (height - bottom - _TOP) / height,
        )
    )
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(color=_LINE, labelcolor=_SOFT, labelsize=11, length=3)
    axes.xaxis.label.set(color=_SOFT, size=11)
    axes.yaxis.label.set(color=_SOFT, size=11)
    axes.locator_params(nbins=6)
    return figure, axes


def _rows(count: int, row_height: int) -> tuple["Figure", "Axes"]:
    """Axes with a row for each of `count` things, the first at the top."""
    figure, axes = _axes(count * row_height + _TOP + _BOTTOM)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(visible=True, axis="x", color=_LINE, lw=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _label(
    axes: "Axes", place: int, text: str, value: str, *, above: float = 0.2, room: int = 0
) -> None:
    """A row's name at the left and its number at the right, above what is drawn in it.

    `room` is how many characters the name may have, where the number leaves fewer than usual.
    """
    across = axes.get_yaxis_transform()
    value = shortened(one_line(value), _LABEL_CHARACTERS // 2)
    kept = shortened(one_line(text), room or _LABEL_CHARACTERS - len(value))
    axes.text(0, place - above, kept, color=_INK, fontsize=12, transform=across)
    axes.text(1, place - above, value, color=_SOFT, fontsize=12, ha="right", transform=across)


def _dot(axes: "Axes", x: float, y: float, verdict: Verdict | None, shape: str = "o") -> None:
    """Filled for pass, half for undecided, hollow for fail: told apart without colours."""
    colour = _SOFT if verdict is None else _OF_VERDICT[verdict]
    axes.plot([x], [y], shape, color=_CARD, ms=8)
    axes.plot(
        [x],
        [y],
        shape,
        color=colour,
        ms=8,
        markeredgewidth=1.5,
        fillstyle=_FILL[verdict or Verdict.PASS],
        markerfacecoloralt=_CARD,
        clip_on=False,
    )


def _svg(figure: "Figure", title: str) -> str:
    """The figure as an element of the page, without anything that would reach beyond itself."""
    drawn = io.BytesIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(drawn, format="svg", metadata=nothing, transparent=True)
    root = ET.fromstring(drawn.getvalue())  # noqa: S314 -- it was drawn above
    prefix = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for child in [child for child in element if child.tag.endswith(("}style", "}metadata"))]:
            element.remove(child)
        element.attrib = _attributes(element.attrib, prefix)
        if element.tag == "g":
            element.attrib.pop("id", None)
        if element.tag != "text":
            element.text = None
        element.tail = None
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": one_line(title)}
    return ET.tostring(root, encoding="unicode")


def _attributes(given: dict[str, str], prefix: str) -> dict[str, str]:
    """Styles as attributes, which a strict policy allows, and names that are the chart's own."""
    kept: dict[str, str] = {}
    for name, value in given.items():
        match name.rpartition("}")[2]:
            case "style":
                for declaration in value.split(";"):
                    key, _, what = (part.strip() for part in declaration.partition(":"))
                    if key and not key.startswith("font-family"):
                        kept[key] = _COLOURS.get(what, what)
            case "id":
                kept["id"] = f"{prefix}-{value}"
            case "href":
                kept["href"] = f"#{prefix}-{value.removeprefix('#')}"
            case "clip-path":
                kept["clip-path"] = value.replace("url(#", f"url(#{prefix}-")
            case "version":
                pass
            case plain:
                kept[plain] = " ".join(value.split())
    return kept
