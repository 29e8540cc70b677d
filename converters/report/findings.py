"""What a conversion found beside its variants: losses told apart, the calibration, what is missing.

Pure, from a conversion's parts, as plain rows.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from cloud_sync.evidence import GateResult
from converters.methods import CalibrationReport
from converters.report import words
from converters.report.verdicts import tone_of

if TYPE_CHECKING:
    from converters.build import Parts

_MOST_SATURATED = 5
_EXPLAINED = {
    "pre-processing": "Is the model fed as it was trained? Other usual ways of feeding float32 "
    "are tried beside the given one.",
    "conversion": "Does float32 answer on this runtime as on that of the model's own format?",
    "quantization": "Does the quantized file answer as float32 does, on the same runtime?",
}


class LossRow(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison: its verdict, where it was made, and the sentence."""

    tone: str
    verdict: str
    where: str
    reason: str


class LossGroup(msgspec.Struct, frozen=True, kw_only=True):
    """All comparisons of one kind, and what question they answer."""

    kind: str
    question: str
    rows: tuple[LossRow, ...]


def losses(parts: "Parts") -> tuple[LossGroup, ...]:
    """Comparisons by kind, in the order in which accuracy is lost; equal ones once."""
    groups = []
    for kind, question in _EXPLAINED.items():
        mine = [loss for loss in parts.losses if loss.kind == kind]
        rows = dict.fromkeys(_loss_row(loss.where, loss.gate) for loss in mine)
        if rows:
            groups.append(LossGroup(kind=kind, question=question, rows=tuple(rows)))
    return tuple(groups)


def _loss_row(where: str, gate: GateResult) -> LossRow:
    return LossRow(
        tone=tone_of(gate.result),
        verdict=str(gate.result),
        where=where,
        reason=words.sentence(gate.reason),
    )


def calibration(parts: "Parts") -> Iterator[tuple[str, str]]:
    """Pairs of a name and a text; none where nothing was calibrated."""
    report = parts.diagnosis.calibration
    if report is None:
        return
    repeated = (
        f", {words.count(report.duplicates)} of them repeat another" if report.duplicates else ""
    )
    yield "Samples", f"{words.count(report.samples)}{repeated}"
    for each in report.inputs:
        covered = f"from {words.number(each.low)} to {words.number(each.high)}"
        yield f"Values of {each.name}", covered
    if report.classes:
        yield "Classes", f"{len(report.classes)}, {_least_and_most(report)} samples each"
    made = f", for {parts.diagnosis.move}" if parts.diagnosis.move else ", used by no file"
    yield "Ranges by", f"{report.calibration}{made}"
    yield "Ranges settled", _settled(report)
    yield "Saturation", _saturated(report)


def _least_and_most(report: CalibrationReport) -> str:
    counts = report.classes.values()
    return f"{words.count(min(counts))} to {words.count(max(counts))}"


def _settled(report: CalibrationReport) -> str:
    if report.converged:
        return (
            f"95 % of them after {words.count(report.converged_after)} samples: what so many give "
            "would do for the others"
        )
    late = words.listed(words.one_line(name) for name in report.unsettled[:_MOST_SATURATED])
    return (
        f"no: {words.count(len(report.unsettled))} of them would be others with more samples, "
        f"among them those of {late}"
    )


def _saturated(report: CalibrationReport) -> str:
    if report.calibration == "minmax":
        return "none on these samples: ranges hold every value that they had"
    worst = [
        f"{words.one_line(s.tensor)} {words.share(s.share)}"
        for s in report.saturated[:_MOST_SATURATED]
    ]
    if not worst:
        return "none on these samples"
    return (
        f"{words.count(len(report.saturated))} tensors have values beyond their range, most of "
        f"all {words.listed(worst)}"
    )
