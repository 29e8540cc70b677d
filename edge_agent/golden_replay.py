"""The comparison of a golden replay with what was recorded: pure, and its gate.

Where exactly this runtime, version and instruction set were recorded, the outputs decide.
Elsewhere they do within the stated tolerance; beyond it the labels of the golden set decide, with
their interval. That is for labels of classes, which scores are compared with here (top-1): what a
detector, a reader of text or an embedding lost, this device cannot tell, and is undecided.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloud_sync.evidence import Accuracy, GateResult, GoldenResult, Verdict
from cloud_sync.golden import GoldenSet, Recorded, matching
from cloud_sync.trial import CONFIDENCE, wilson
from edgeml.errors import ReleaseError

Outputs = Sequence[NDArray[np.generic]]

MAX_LABEL_LOSS = 0.02
# Of the labels, what the recording must hit for them to say anything of what is lost.
MIN_LABELS_HIT = 0.5
SCORES_OF_CLASSES = frozenset({"classification", "keyword"})


def compare(
    outputs: Outputs,
    golden: GoldenSet,
    recordings: list[Recorded],
    made_with: tuple[str, str, str],
    task: str = "classification",
) -> tuple[GoldenResult, GateResult]:
    """Compare replayed outputs with the variant's recorded ones.

    Args:
        outputs: each [n, ...], as replayed here.
        golden: the golden set.
        recordings: the variant's recordings.
        made_with: runtime, version and instruction set of this device.
        task: the pipeline's; empty where there is none, and the outputs' shape tells.

    Raises:
        ReleaseError: the recording has other shapes than the replay.
    """
    exact = matching(recordings, *made_with)
    recorded = exact or recordings[0]
    tolerance = recorded.tolerance if exact else recorded.other_tolerance
    difference = _difference(outputs, recorded.outputs)
    unread = _why_unread(golden, recorded, task)
    result = GoldenResult(
        samples=len(golden.inputs),
        max_difference=difference,
        tolerance=tolerance,
        recorded_for=recorded.made_with,
        label_accuracy=None if unread else _accuracy(outputs, golden),
    )
    if not exact and difference > tolerance and not unread and golden.labels is not None:
        return result, _by_labels(outputs, recorded, golden.labels, difference)
    if difference <= tolerance:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.FAIL if exact else Verdict.UNDECIDED
    against = "made with the same runtime" if exact else f"made with {recorded.made_with}"
    gate = GateResult(
        name="golden.outputs",
        result=verdict,
        value=difference,
        bound=tolerance,
        n=len(golden.inputs),
        reason=f"the largest difference from the outputs recorded at the converter ({against}) "
        f"is {difference:.3g}, {tolerance:.3g} is allowed"
        + (f"; {unread}" if verdict is Verdict.UNDECIDED else ""),
    )
    return result, gate


def _why_unread(golden: GoldenSet, recorded: Recorded, task: str) -> str:
    """Why the labels cannot be compared with the outputs; empty where they can."""
    if golden.labels is None:
        return "the golden set has no labels of classes, which could decide"
    if task and task not in SCORES_OF_CLASSES:
        return f"labels of classes do not tell what a {task} has lost"
    n = len(golden.labels)
    classes = recorded.outputs[0].size // max(n, 1) if recorded.outputs else 0
    if classes < 2 or not ((golden.labels >= 0) & (golden.labels < classes)).all():  # noqa: PLR2004
        return f"the first output has {classes} scores, which the labels do not name"
    hit = int((_top1(recorded.outputs, n) == golden.labels).sum())
    if hit < MIN_LABELS_HIT * n:
        return f"the recording itself hits {hit} of {n} labels, which therefore decide nothing"
    return ""


def _by_labels(
    outputs: Outputs, recorded: Recorded, labels: NDArray[np.int64], difference: float
) -> GateResult:
    """Whether this device gets wrong what the recording got right, on the same inputs.

    The share of those is never less than what the accuracy has lost, so its interval bounds
    the loss.
    """
    n = len(labels)
    lost = int(((_top1(recorded.outputs, n) == labels) & (_top1(outputs, n) != labels)).sum())
    low, high = wilson(lost, n)
    if high <= MAX_LABEL_LOSS:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.FAIL if low > MAX_LABEL_LOSS else Verdict.UNDECIDED
    return GateResult(
        name="golden.labels",
        result=verdict,
        value=lost / n,
        bound=MAX_LABEL_LOSS,
        low=low,
        high=high,
        confidence=CONFIDENCE,
        n=n,
        reason=f"{lost} of {n} labels that the outputs made with {recorded.made_with} hit are "
        f"missed here (95 % interval {low:.1%} to {high:.1%}), {MAX_LABEL_LOSS:.1%} is allowed; "
        f"the largest difference is {difference:.3g}, {recorded.other_tolerance:.3g} is allowed "
        "for another runtime",
    )


def _difference(ours: Outputs, recorded: Outputs) -> float:
    if len(ours) != len(recorded):
        raise ReleaseError(
            "The recorded outputs do not fit the model.", why="Their number differs."
        )
    largest = 0.0
    for a, b in zip(ours, recorded, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ReleaseError(
                "The recorded outputs do not fit the model.",
                why=f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}.",
            )
        if a.size:
            distance = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
            largest = max(largest, float("inf") if np.isnan(distance) else float(distance))
    return largest


def _accuracy(outputs: Outputs, golden: GoldenSet) -> Accuracy | None:
    if golden.labels is None:
        return None
    n = len(golden.labels)
    right = int((_top1(outputs, n) == golden.labels).sum())
    low, high = wilson(right, n)
    return Accuracy(metric="top1", value=right / n, low=low, high=high, confidence=CONFIDENCE, n=n)


def _top1(outputs: Outputs, n: int) -> NDArray[np.int64]:
    """The class of each sample; -1, which no label is, where a score is no number."""
    scores = outputs[0].reshape(n, -1).astype(np.float64)
    return np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))
