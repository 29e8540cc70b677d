"""A device's telemetry as lines over time. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cloud_sync.messages import Window
from fleet.console.views import drift
from fleet.console.views.charts import Line
from fleet.resources import TelemetryWindow
from fleet.services.metrics import MetricPoint, Metrics


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A chart: its title, what it says in words, and its lines."""

    title: str
    note: str
    unit: str
    lines: tuple[Line, ...]
    percent: bool = False


def of_windows(items: Sequence[TelemetryWindow]) -> tuple[Chart, ...]:
    """Charts of a device's windows as they came, which are given newest first."""
    found: dict[str, list[tuple[float, Window]]] = {}
    for item in reversed(items):
        window = msgspec.convert(item["window"], Window)
        at = item["at"] if item["at"] is not None else item["received_at"]
        name = f"{window.model}:{window.release_version or '?'}"
        if window.source:
            name = f"{name} on {window.source}"
        found.setdefault(name, []).append((at, window))

    def lines(value: Callable[[Window], float | None], suffix: str = "") -> tuple[Line, ...]:
        return tuple(
            Line(name=f"{name}{suffix}", points=tuple((at, value(w)) for at, w in windows))
            for name, windows in found.items()
        )

    names = sorted({name for windows in found.values() for _, w in windows for name in w.metrics})
    return _charts(
        latency=lines(_percentile(50), ", p50") + lines(_percentile(95), ", p95"),
        drifted=tuple(line for one in found.items() for line in drift.lines(*one)),
        measured={name: lines(_mean(name)) for name in names},
        rate=lines(lambda w: w.inferred / w.seconds if w.seconds else None),
        errors=lines(lambda w: w.errors / max(1, w.inferred + w.errors + w.empty)),
        confident=lines(lambda w: w.confident / w.inferred if w.inferred else None),
        heat=lines(lambda w: w.duty),
    )


def of_hours(metrics: Metrics) -> tuple[Chart, ...]:
    """Charts of a device's hours, which reach further back."""

    def lines(value: Callable[[MetricPoint], float | None], suffix: str = "") -> tuple[Line, ...]:
        return tuple(
            Line(
                name=f"{_name(one['of'])}{suffix}",
                points=tuple((point["at"], value(point)) for point in one["points"]),
            )
            for one in metrics["series"]
        )

    def mean(name: str) -> Callable[[MetricPoint], float | None]:
        return lambda point: point["metrics"][name]["mean"] if name in point["metrics"] else None

    names = sorted({name for one in metrics["series"] for name in one["total"]["metrics"]})
    return _charts(
        latency=lines(lambda p: p["p50_ms"], ", p50") + lines(lambda p: p["p95_ms"], ", p95"),
        drifted=(),
        measured={name: lines(mean(name)) for name in names},
        rate=lines(lambda p: p["per_s"]),
        errors=lines(lambda p: p["error_rate"]),
        confident=lines(lambda p: p["confident"] / p["inferred"] if p["inferred"] else None),
        heat=(),
    )


def _charts(
    *,
    latency: tuple[Line, ...],
    rate: tuple[Line, ...],
    errors: tuple[Line, ...],
    confident: tuple[Line, ...],
    heat: tuple[Line, ...],
    drifted: tuple[Line, ...],
    measured: Mapping[str, tuple[Line, ...]],
) -> tuple[Chart, ...]:
    made = (
        Chart(title="Latency of an inference", note="p50 and p95", unit="ms", lines=latency),
        Chart(title="Frames a second", note="results by measured time", unit="fps", lines=rate),
        Chart(title="Errors", note="share of the frames", unit="", lines=errors, percent=True),
        Chart(
            title="Confident results",
            note="at or above the pipeline's threshold",
            unit="",
            lines=confident,
            percent=True,
        ),
        Chart(
            title="Heat",
            note="share of its time that the device may infer; below 100 % it is too hot",
            unit="",
            lines=heat,
            percent=True,
        ),
        *(_measured(name, lines) for name, lines in measured.items()),
        Chart(
            title="Drift",
            note="share of the results that would have to be of another class to be as in the "
            "first half of what is shown; beside it, how far that went in the first half itself",
            unit="",
            lines=drifted,
            percent=True,
        ),
    )
    return tuple(chart for chart in made if chart.lines)


def _measured(name: str, lines: tuple[Line, ...]) -> Chart:
    """What the kernel or programs on the device measure, by the name that they give it."""
    if name == "temperature_c":
        return Chart(title="Temperature", note="as the kernel tells it", unit="°C", lines=lines)
    return Chart(title=name, note="mean of what the device measures", unit="", lines=lines)


def _mean(name: str) -> Callable[[Window], float | None]:
    def value(window: Window) -> float | None:
        found = window.metrics.get(name)
        return found.sum / found.n if found else None

    return value


def _percentile(percent: float) -> Callable[[Window], float | None]:
    def value(window: Window) -> float | None:
        sketch = window.latency.get("inference")
        return sketch.percentile(percent) if sketch and sketch.count else None

    return value


def _name(of: Mapping[str, Any]) -> str:
    return " ".join(str(of[key])[:19] for key in ("model", "release") if of.get(key))
