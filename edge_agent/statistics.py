"""What a release does with live frames: counts and latency sketches, cheap to keep."""

import threading
from collections import deque

from cloud_sync.evidence import Latency
from cloud_sync.sketch import Sketch, SketchBuilder

STAGES = ("wait", "pre", "inference", "post", "total")
RECENT = 2000


class Window:
    """Counts since the last report, of one source."""

    def __init__(self) -> None:
        self.inferred = 0
        self.empty = 0
        self.errors = 0
        self.confident = 0
        self.classes: dict[str, int] = {}
        self._latency = {stage: SketchBuilder() for stage in STAGES}

    def time(self, stage: str, seconds: float) -> None:
        """Count one latency."""
        self._latency[stage].add(seconds * 1000)

    def result(self, label: str, *, confident: bool) -> None:
        """Count one result."""
        self.inferred += 1
        self.confident += confident
        self.classes[label] = self.classes.get(label, 0) + 1

    def latency(self) -> dict[str, Sketch]:
        """The sketches of the stages that were timed, in milliseconds."""
        built = {stage: builder.build() for stage, builder in self._latency.items()}
        return {stage: sketch for stage, sketch in built.items() if sketch.count}


class Live:
    """What one loaded release did since it went live, its recent results kept apart.

    Its worker writes, the update's thread reads.
    """

    def __init__(self) -> None:
        self.inferred = 0
        self.empty = 0
        self.errors = 0
        self.confident = 0
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._times: deque[float] = deque(maxlen=RECENT)
        self._lock = threading.Lock()

    def result(self, milliseconds: float, *, confident: bool) -> None:
        """Count one inference."""
        with self._lock:
            self.inferred += 1
            self.confident += confident
            self._recent.append(confident)
            self._times.append(milliseconds)

    def recent(self) -> tuple[int, int]:
        """Of the recent results, how many there are and how many were confident."""
        with self._lock:
            return len(self._recent), sum(self._recent)

    def latency(self) -> Latency | None:
        """Percentiles of the recent inferences; None before the first."""
        with self._lock:
            times = list(self._times)
        times.sort()
        if not times:
            return None
        return Latency(
            p50_ms=_percentile(times, 50),
            p95_ms=_percentile(times, 95),
            p99_ms=_percentile(times, 99),
            n=len(times),
        )


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
