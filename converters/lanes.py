"""What races: lanes, the races that they run in, and what a race tells of each."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from cloud_sync.evidence import Latency
from converters.artifact import Artifact
from hardware.capabilities import RuntimeInfo


class Lane(msgspec.Struct, frozen=True):
    """An artifact on a runtime."""

    artifact: Artifact
    runtime: str

    @property
    def key(self) -> str:
        """Its name among others."""
        return f"{self.artifact.key}@{self.runtime}"


class Race(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs side by side, and until when.

    Args:
        lanes: what runs.
        seconds: how long about, for all of them together.
        bound: of the speed-up over another lane; where each is shown to lie on one side of it,
            the race ends early.
        against: the other lane of each that the bound is about. Such a race is evidence: it has
            at least as many rounds as percentiles take. Without it, the race is a quick one, and
            the bound is about the speed-up over the first lane.
        anew: in processes started for this race, so that what one start brought by luck does
            not repeat.
    """

    lanes: Sequence[Lane]
    seconds: float
    bound: float | None = None
    against: Mapping[Lane, Lane] | None = None
    anew: bool = False

    @property
    def is_quick(self) -> bool:
        """Whether it asks no more than on which side of the bound lanes are."""
        return self.bound is not None and self.against is None

    @property
    def pairs(self) -> Mapping[Lane, Lane]:
        """What the bound is about: each lane's rival."""
        if self.against is None:
            return dict.fromkeys(self.lanes[1:], self.lanes[0])
        return self.against


class Timing(msgspec.Struct, frozen=True):
    """Milliseconds a round, and where nodes were placed.

    Of each process that ran it alone, the milliseconds of loading and its peak memory in bytes.
    """

    milliseconds: tuple[float, ...]
    loads_ms: tuple[float, ...]
    peaks_bytes: tuple[int, ...]
    placement: dict[str, int]
    info: RuntimeInfo

    @property
    def load_ms(self) -> float | None:
        """Of loading the model, the median; None where nothing was timed."""
        return float(np.median(self.loads_ms)) if self.loads_ms else None

    @property
    def memory_bytes(self) -> int | None:
        """A process's peak memory, the median; None where nothing was timed."""
        return int(np.median(self.peaks_bytes)) if self.peaks_bytes else None

    @property
    def p50_ms(self) -> float:
        """The median; NaN where nothing was timed."""
        return self.latency.p50_ms if self.latency else float("nan")

    @property
    def latency(self) -> Latency | None:
        """Its percentiles; None where nothing was timed."""
        if not self.milliseconds:
            return None
        p50, p95, p99 = np.percentile(self.milliseconds, [50, 95, 99])
        return Latency(
            p50_ms=float(p50), p95_ms=float(p95), p99_ms=float(p99), n=len(self.milliseconds)
        )
