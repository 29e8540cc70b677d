"""The calibration report: whether the samples were enough, and what their ranges leave out."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from converters.methods.calibrate import Statistics
from converters.methods.histograms import Range, share_outside
from converters.methods.prepare import Prepared

_MANY_SATURATED = 0.01
_ALMOST_ALL = 0.95
_FEW = 16
_FAR = 2  # spans of calibration that evaluation goes beyond it
_WIDE = 8  # spans of evaluation within that of calibration


class Saturation(msgspec.Struct, frozen=True, kw_only=True):
    """The share, 0 to 1, of a tensor's values that its range does not represent."""

    tensor: str
    share: float


class InputCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """The values of an input that the samples covered, and those of a look at evaluation."""

    name: str
    low: float
    high: float
    evaluated: Range | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence where evaluation samples look as if they had been prepared otherwise."""
        if self.evaluated is None:
            return ()
        low, high = self.evaluated.low, self.evaluated.high
        span, other = self.high - self.low, high - low
        beyond = max(self.low - low, high - self.high)
        if beyond <= _FAR * span and (other == 0 or span <= _WIDE * other):
            return ()
        said = (
            f"The input {self.name} is from {self.low:g} to {self.high:g} here and from {low:g} to "
            f"{high:g} in evaluation samples: are both prepared alike?"
        )
        return (said,)


class CalibrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What to know of a calibration before trusting it.

    Attributes:
        samples: how many samples reached the model.
        duplicates: how many of them repeat an earlier one.
        calibration: how ranges were taken.
        saturated: the tensors of which values saturate, most first; none for minmax.
        converged: whether the ranges that half of the samples, or fewer, give would do for the
            others, of 95 % of the tensors.
        converged_after: how many samples that takes; all where half of them are too few.
        unsettled: tensors whose ranges have not, in alphabetical order.
        inputs: the values of each input that were covered.
        classes: samples of each class, where labels are known.
        warnings: what is wrong, in plain words.
    """

    samples: int
    duplicates: int
    calibration: str
    saturated: tuple[Saturation, ...]
    converged: bool
    converged_after: int
    unsettled: tuple[str, ...]
    inputs: tuple[InputCoverage, ...]
    classes: dict[int, int] = {}
    warnings: tuple[str, ...] = ()

    @property
    def input_warnings(self) -> tuple[str, ...]:
        """Those that hold of the samples themselves, whether or not they set a file's ranges."""
        return tuple(warning for each in self.inputs for warning in each.warnings)


def report_on(
    prepared: Prepared,
    statistics: Statistics,
    *,
    calibration: str = "minmax",
    percentile: float = 99.99,
    digests: Sequence[bytes] = (),
    labels: Sequence[int] = (),
    classes: int = 0,
    evaluated: Mapping[str, Range] | None = None,
) -> CalibrationReport:
    """Report on a calibration.

    Args:
        prepared: the model.
        statistics: what calibration saw of it.
        calibration: how ranges are taken; other than minmax may take a pass over the samples.
        percentile: what a percentile range keeps, in per cent of the values.
        digests: one digest for each sample, to find duplicates.
        labels: the class of each sample, where known.
        classes: how many classes there are, where known.
        evaluated: by input, the values of evaluation samples, where some were looked at.
    """
    evaluated = evaluated or {}
    report = CalibrationReport(
        samples=statistics.samples,
        duplicates=len(digests) - len(set(digests)),
        calibration=calibration,
        saturated=_saturated(statistics, calibration, percentile),
        converged_after=_settled_after(statistics),
        converged=2 * _settled_after(statistics) <= statistics.samples,
        unsettled=_unsettled(statistics),
        inputs=tuple(
            InputCoverage(
                name=i.name,
                low=statistics.seen[i.name].low,
                high=statistics.seen[i.name].high,
                evaluated=evaluated.get(i.name),
            )
            for i in prepared.proto.graph.input
            if i.name in statistics.seen
        ),
        classes=dict(sorted(Counter(int(label) for label in labels).items())),
    )
    return msgspec.structs.replace(report, warnings=tuple(_warnings(report, classes)))


def _saturated(
    statistics: Statistics, calibration: str, percentile: float
) -> tuple[Saturation, ...]:
    if calibration == "minmax":
        return ()
    ranges = statistics.ranges(calibration, percentile)
    shares = {
        name: share_outside(counts, statistics.seen[name], ranges[name])
        for name, counts in statistics.histograms().items()
    }
    found = [Saturation(tensor=name, share=share) for name, share in shares.items() if share]
    return tuple(sorted(found, key=lambda s: (-s.share, s.tensor)))


def _settled_after(statistics: Statistics) -> int:
    settled = sorted(statistics.settled.values()) or [0]
    return settled[int(np.ceil(_ALMOST_ALL * len(settled))) - 1]


def _unsettled(statistics: Statistics) -> tuple[str, ...]:
    return tuple(sorted(n for n, at in statistics.settled.items() if 2 * at > statistics.samples))


def _warnings(report: CalibrationReport, classes: int) -> list[str]:
    found = []
    distinct = report.samples - report.duplicates
    if report.duplicates:
        found.append(f"{report.duplicates} of {report.samples} samples repeat another one.")
    if distinct < _FEW:
        found.append(f"Only {distinct} different samples set the ranges.")
    if not report.converged:
        late = report.unsettled
        which = f"range of {late[0]} has" if len(late) == 1 else f"ranges of {len(late)} tensors"
        which += "" if len(late) == 1 else f", among them {late[0]}, have"
        found.append(
            f"The {which} not settled: many samples go far beyond what half of the "
            f"{report.samples} give. Calibrate on more samples."
        )
    many = [s for s in report.saturated if s.share > _MANY_SATURATED]
    if many:
        found.append(
            f"{len(many)} tensors saturate in more than 1 % of their values, most of all "
            f"{many[0].tensor} ({100 * many[0].share:.1f} %)."
        )
    found += [f"The input {i.name} is always {i.low:g}." for i in report.inputs if i.low == i.high]
    found += report.input_warnings
    if report.classes and classes > len(report.classes):
        found.append(f"{classes - len(report.classes)} of {classes} classes have no sample.")
    return found
