"""Windows of telemetry summed up; sums can be summed up again, in any order. Pure."""

import math
from collections.abc import Mapping

import msgspec

from cloud_sync.messages import MAX_METRICS, Measure, Window
from cloud_sync.sketch import Sketch

COUNTS = ("accepted", "replaced", "inferred", "empty", "errors", "confident")
MOST = 2**53
"""What any count is cut to: what JSON's readers hold; no device of ours counts so far."""

_MOST_STAGES = 16
_MOST_SECONDS = 86400.0
_MOST_JOULES = 1e9
_MOST_VALUE = 1e15


class _Counted(msgspec.Struct, omit_defaults=True):
    """A sketch that grows."""

    zeros: int = 0
    buckets: dict[str, int] = {}


class Sums(msgspec.Struct, kw_only=True):
    """What some windows have together; a device that lies can make it wrong, not break it.

    `energy_j` was used for `energy_inferred` inferences: those of windows that measured it.
    """

    windows: int = 0
    seconds: float = 0.0
    accepted: int = 0
    replaced: int = 0
    inferred: int = 0
    empty: int = 0
    errors: int = 0
    confident: int = 0
    rss_bytes: int = 0
    energy_j: float = 0.0
    energy_inferred: int = 0
    latency: dict[str, _Counted] = {}
    metrics: dict[str, Measure] = {}

    def add(self, window: Window) -> None:
        """Add a window."""
        self.windows += 1
        self.seconds += min(max(window.seconds, 0.0), _MOST_SECONDS)
        for name in COUNTS:
            setattr(self, name, _sum(getattr(self, name), getattr(window, name)))
        self.rss_bytes = max(self.rss_bytes, min(window.rss_bytes, MOST))
        if window.energy_j is not None and 0 <= window.energy_j <= _MOST_JOULES:
            self.energy_j += window.energy_j
            self.energy_inferred = _sum(self.energy_inferred, window.inferred)
        for stage, sketch in window.latency.items():
            self._count(stage, sketch.zeros, sketch.buckets)
        for name, measure in window.metrics.items():
            if _is_possible(measure):
                self._measure(name, measure)

    def merge(self, other: "Sums") -> None:
        """Add other sums."""
        self.windows = _sum(self.windows, other.windows)
        self.seconds += other.seconds
        for name in COUNTS:
            setattr(self, name, _sum(getattr(self, name), getattr(other, name)))
        self.rss_bytes = max(self.rss_bytes, other.rss_bytes)
        self.energy_j += other.energy_j
        self.energy_inferred = _sum(self.energy_inferred, other.energy_inferred)
        for stage, counted in other.latency.items():
            self._count(stage, counted.zeros, counted.buckets)
        for name, measure in other.metrics.items():
            self._measure(name, measure)

    @property
    def energy_per_inference_j(self) -> float | None:
        """The joules of an inference; None where nothing measured it."""
        return self.energy_j / self.energy_inferred if self.energy_inferred else None

    def percentile(self, stage: str, percent: float) -> float | None:
        """A stage's latency in ms that `percent` of the frames did not exceed; None without any."""
        counted = self.latency.get(stage)
        sketch = Sketch(zeros=counted.zeros, buckets=counted.buckets) if counted else Sketch()
        return sketch.percentile(percent) if sketch.count else None

    def encoded_latency(self) -> bytes:
        """The sketches as they are kept."""
        return msgspec.json.encode(self.latency)

    def encoded_metrics(self) -> bytes:
        """The metrics as they are kept."""
        return msgspec.json.encode(self.metrics)

    def _measure(self, name: str, measure: Measure) -> None:
        before = self.metrics.get(name)
        if before is not None:
            measure = before.merged(measure)
        elif len(self.metrics) >= MAX_METRICS:
            return
        self.metrics[name] = msgspec.structs.replace(measure, n=min(measure.n, MOST))

    def _count(self, stage: str, zeros: int, buckets: Mapping[str, int]) -> None:
        mine = self.latency.get(stage)
        if mine is None:
            if len(self.latency) >= _MOST_STAGES:
                return
            mine = self.latency[stage] = _Counted()
        mine.zeros = _sum(mine.zeros, zeros)
        counts = mine.buckets
        for index, count in buckets.items():
            counts[index] = _sum(counts.get(index, 0), count)


def decoded_latency(data: bytes) -> dict[str, _Counted]:
    """Sketches that were kept."""
    return _latency.decode(data)


def decoded_metrics(data: bytes) -> dict[str, Measure]:
    """Metrics that were kept."""
    return _metrics.decode(data)


_metrics = msgspec.json.Decoder(dict[str, Measure])
_latency = msgspec.json.Decoder(dict[str, _Counted])


def _sum(one: int, other: int) -> int:
    return min(one + max(other, 0), MOST)


def _is_possible(measure: Measure) -> bool:
    """Whether a measure can be one: neither endless nor upside down."""
    least, most = measure.min, measure.max
    possible = -_MOST_VALUE <= least <= most <= _MOST_VALUE and measure.n <= MOST
    if not possible or not math.isfinite(measure.sum):
        return False
    slack = 1e-6 * max(abs(least), abs(most), 1e-12)
    return least - slack <= measure.sum / measure.n <= most + slack
