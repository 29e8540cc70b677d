"""A mergeable latency sketch: the exponential histogram of OpenTelemetry, at a fixed scale.

Buckets grow by a factor of 2 ** (1 / 8), so that a percentile is off by at most 4.5 per cent
of itself; two sketches merge by adding their counts, on the device, in the fleet, over any
time range.

Source: OpenTelemetry specification, metrics data model, "ExponentialHistogram" (scale 3).

    >>> sketch = Sketch.of([1.0, 2.0, 3.0, 100.0])
    >>> sketch.count, round(sketch.percentile(50), 1)
    (4, 1.9)
"""

import math
import re
from collections.abc import Iterable
from functools import lru_cache

import msgspec

SCALE = 3
_PER_DOUBLING = 2**SCALE
# What the logarithms of positive finite doubles need.
_INDICES = range(-1075 * _PER_DOUBLING, 1024 * _PER_DOUBLING)
_INDEX = re.compile(r"0|-?[1-9][0-9]{0,4}")
_LONGEST = 6  # what is longer is no index, and is not remembered


class Sketch(msgspec.Struct, frozen=True, kw_only=True):
    """Counts by bucket index (as text: JSON keys); index i holds (base**i, base**(i+1)].

    `zeros` counts values that are not positive. A sketch that a device sends is checked when
    it is decoded, so that whoever merges or reads one need not.

    Raises:
        ValueError: another scale, a bucket that no finite value falls into, or a negative count.
    """

    scale: int = SCALE
    zeros: int = 0
    buckets: dict[str, int] = {}

    def __post_init__(self) -> None:
        if self.scale != SCALE:
            raise ValueError(f"a sketch of scale {self.scale}, only {SCALE} is known")
        if self.zeros < 0 or any(count < 0 for count in self.buckets.values()):
            raise ValueError("a sketch with a negative count")
        for key in self.buckets:
            if len(key) > _LONGEST or not _is_index(key):
                raise ValueError(f"a sketch with a bucket {key[:20]!r}")

    @classmethod
    def of(cls, values: Iterable[float]) -> "Sketch":
        """Sketch some values, in the unit they are in."""
        builder = SketchBuilder()
        for value in values:
            builder.add(value)
        return builder.build()

    @property
    def count(self) -> int:
        """How many values were sketched."""
        return self.zeros + sum(self.buckets.values())

    def merged(self, other: "Sketch") -> "Sketch":
        """The sketch of both sets of values."""
        buckets = dict(self.buckets)
        for index, count in other.buckets.items():
            buckets[index] = buckets.get(index, 0) + count
        return Sketch(zeros=self.zeros + other.zeros, buckets=buckets)

    def percentile(self, percent: float) -> float:
        """The value below which `percent` of the values lie; NaN for an empty sketch."""
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(self.count * percent / 100))
        seen = self.zeros
        if rank <= seen:
            return 0.0
        for index, count in sorted((int(i), n) for i, n in self.buckets.items()):
            seen += count
            if rank <= seen:
                return float(2 ** ((index + 0.5) / _PER_DOUBLING))
        return math.nan


@lru_cache(maxsize=4096)
def _is_index(key: str) -> bool:
    return _INDEX.fullmatch(key) is not None and int(key) in _INDICES


class SketchBuilder:
    """Collects values cheaply (about a microsecond each) and builds the `Sketch`."""

    def __init__(self) -> None:
        self._zeros = 0
        self._buckets: dict[int, int] = {}

    def add(self, value: float) -> None:
        """Count one value."""
        if value > 0 and math.isfinite(value):
            index = math.ceil(math.log2(value) * _PER_DOUBLING) - 1
            self._buckets[index] = self._buckets.get(index, 0) + 1
        else:
            self._zeros += 1

    def build(self) -> Sketch:
        """The sketch of what was added so far."""
        return Sketch(
            zeros=self._zeros, buckets={str(i): n for i, n in sorted(self._buckets.items())}
        )
