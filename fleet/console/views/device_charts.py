"""A device's telemetry as lines over time. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cloud_sync.messages import Window
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

    return _charts(
        latency=lines(_percentile(50), ", p50") + lines(_percentile(95), ", p95"),
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

    return _charts(
        latency=lines(lambda p: p["p50_ms"], ", p50") + lines(lambda p: p["p95_ms"], ", p95"),
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
    )
    return tuple(chart for chart in made if chart.lines)


def _percentile(percent: float) -> Callable[[Window], float | None]:
    def value(window: Window) -> float | None:
        sketch = window.latency.get("inference")
        return sketch.percentile(percent) if sketch and sketch.count else None

    return value


def _name(of: Mapping[str, Any]) -> str:
    return " ".join(str(of[key])[:19] for key in ("model", "release") if of.get(key))
