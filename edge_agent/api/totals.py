"""What every model did since the API began: telemetry windows added up, for whoever asks.

Telemetry counts what happened since the last report; Prometheus wants counters that only rise.
The figures are those of the last report, at most `telemetry_every_s` old.
"""

import threading

import msgspec

from cloud_sync.messages import Window
from cloud_sync.sketch import Sketch

MAX_KEPT = 64

Key = tuple[str, str, str]


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """One release of a model on one source; latencies in milliseconds, by stage.

    `recent` is the last window alone: what goes on now.
    """

    model: str
    version: str
    source: str
    accepted: int = 0
    replaced: int = 0
    inferred: int = 0
    empty: int = 0
    errors: int = 0
    confident: int = 0
    latency: dict[str, Sketch] = {}
    recent: Window | None = None


class Totals:
    """See the module. Any thread may add and look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[Key, Total] = {}

    def add(self, window: Window) -> None:
        """Count a window."""
        key = (window.model, window.release_version, window.source)
        with self._lock:
            before = self._of.pop(key, None) or Total(
                model=window.model, version=window.release_version, source=window.source
            )
            latency = dict(before.latency)
            for stage, sketch in window.latency.items():
                latency[stage] = latency[stage].merged(sketch) if stage in latency else sketch
            self._of[key] = Total(
                model=before.model,
                version=before.version,
                source=before.source,
                accepted=before.accepted + window.accepted,
                replaced=before.replaced + window.replaced,
                inferred=before.inferred + window.inferred,
                empty=before.empty + window.empty,
                errors=before.errors + window.errors,
                confident=before.confident + window.confident,
                latency=latency,
                recent=window,
            )
            # Releases come and go for years: those that ran longest ago are forgotten.
            while len(self._of) > MAX_KEPT:
                del self._of[next(iter(self._of))]

    def all(self) -> tuple[Total, ...]:
        """Every total, by model, version and source."""
        with self._lock:
            return tuple(self._of[key] for key in sorted(self._of))
