"""Mean average precision of detectors, COCO's: over IoU thresholds .50 to .95, or at .50.

Matching detections to labelled boxes is pycocotools' (`COCOeval.evaluateImg`, one image at a
time, at most 100 detections of a class in an image). Averaging precision over recall is here, for
samples of any weight, many draws of weights at once, as a bootstrap needs it; with equal
weights it gives what `COCOeval.accumulate` gives.

Without a pipeline three forms of one output are read: [1, 4 + C, A] (and [1, A, 4 + C]) as
YOLO has it, rows cx cy w h and C class scores, which are thinned by non-maximum suppression;
and [1, A, 6], rows x1 y1 x2 y2 score class, which were thinned in the graph. Boxes are in the
unit of the labels. Another head needs a class of its own, derived from
`MeanAveragePrecision`, that overrides `detections`, named as `module:attribute`.

Source: T.-Y. Lin et al., "Microsoft COCO", ECCV 2014, and the evaluation code of its authors.
"""

# ruff: noqa: ARG002 -- methods take what the interface hands them

from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import cv2
import msgspec
import numpy as np

from converters.dataset import Boxes, Dataset
from converters.metrics.interface import (
    Outputs,
    Paired,
    labels_of,
    numbers,
    shape_text,
    wrong_labels,
)
from edgeml.errors import ModelError, ToolchainError

THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_MOST_DETECTIONS = 100  # of a class in an image, COCO's
_LEAST_SCORE = 0.001
_SUPPRESSION_IOU = 0.7
_MOST_CANDIDATES = 3000  # before suppression, which is quadratic
_ROW = 6  # x1 y1 x2 y2 score class
_BOX = 4
_CHUNK = 1 << 22
_EVERYWHERE = (0.0, float("inf"))


class Detections(msgspec.Struct, frozen=True):
    """What a model found: `boxes` [m, 4] as x1 y1 x2 y2, `scores` [m], `classes` [m]."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class MeanAveragePrecision(msgspec.Struct, frozen=True):
    """Average precision, averaged over classes that are labelled and over IoU `thresholds`.

    An outcome is, for each class of the image, [class, labelled boxes, scores, matches]; bit
    t of a match is set where the detection matches a box at threshold t.
    """

    name: str = "map"
    thresholds: tuple[float, ...] = tuple(THRESHOLDS.tolist())
    paired: ClassVar[Paired] = "set"
    needs_reference: ClassVar[bool] = False
    needs_inputs: ClassVar[bool] = False
    chance: ClassVar[float] = 0.0

    @property
    def identity(self) -> str:
        """The name, and the versions of what matches and suppresses boxes."""
        return f"{self.name} pycocotools {version('pycocotools')} opencv {cv2.__version__}"

    def detections(self, outputs: Outputs) -> Detections:
        """Read the outputs of one sample.

        Raises:
            ModelError: they are of none of the known forms.
        """
        return yolo_detections(outputs)

    def check(self, dataset: Dataset, outputs: Outputs) -> None:
        """Labels are boxes, at least one, none of them empty; outputs can be read."""
        labels = labels_of(dataset, self.name)
        if not labels.are_boxes:
            raise wrong_labels(dataset.path, self.name, "boxes [N, M, 4] as x1 y1 x2 y2", labels)
        total = 0
        for index in range(len(labels)):
            boxes = labels.of(index).boxes
            total += len(boxes)
            empty = np.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
            if empty.size:
                raise ModelError(
                    f"Box {empty[0]} of sample {index} in {dataset.path} is empty.",
                    why=f"It is {boxes[empty[0]].tolist()}; wanted is x1 y1 x2 y2 with x2 above "
                    "x1 and y2 above y1.",
                    fix="Save the number of boxes of each sample as an array count.",
                )
        if not total:
            raise ModelError(f"There is no labelled box in {dataset.path}.")
        self.detections(outputs)

    def outcome(self, outputs: Outputs, label: Any, reference: Outputs) -> list[Any]:
        """Match what the model found with the labelled boxes of one image."""
        return _matched(self.detections(outputs), label, self.thresholds)

    def missed(self, label: Any) -> list[Any]:
        """Nothing was found."""
        return _matched(_NOTHING, label, self.thresholds)

    def score(self, outcomes: Sequence[Any]) -> float:
        """The mean average precision."""
        return float(self.scores(outcomes, np.ones((1, len(outcomes))))[0])

    def scores(self, outcomes: Sequence[Any], weights: np.ndarray) -> np.ndarray:
        """The mean average precision [draws] for weights [draws, samples]."""
        by_class: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        for index, outcome in enumerate(outcomes):
            for kind, positives, scores, matches in outcome:
                by_class[kind].append((index, (positives, scores, matches)))
        total, labelled = np.zeros(len(weights)), 0
        for _, found in sorted(by_class.items()):
            ranking = _Ranking.of(found, len(outcomes), len(self.thresholds))
            if ranking.positives.any():
                labelled += 1
                total += ranking.precision(weights)
        return total / max(labelled, 1)


def yolo_detections(outputs: Outputs, least_score: float = _LEAST_SCORE) -> Detections:
    """Read a YOLO-shaped output, with non-maximum suppression where the graph has none.

    Raises:
        ModelError: the output has none of the known shapes, or holds NaN.
    """
    output = numbers(outputs)
    if output.ndim != 3 or output.shape[0] != 1 or len(outputs) != 1:  # noqa: PLR2004
        raise _unknown_head(outputs)
    rows = output[0].astype(np.float64)
    if rows.shape[1] == _ROW:
        kept = rows[rows[:, 4] >= least_score]
        return Detections(kept[:, :4], kept[:, 4], kept[:, 5].astype(np.int64))
    if rows.shape[0] < rows.shape[1]:
        rows = rows.T
    if rows.shape[1] <= _BOX:
        raise _unknown_head(outputs)
    centres, sizes, scores = rows[:, :2], rows[:, 2:4], rows[:, 4:]
    anchors, classes = np.nonzero(scores >= least_score)
    best = scores[anchors, classes]
    first = np.argsort(-best, kind="stable")[:_MOST_CANDIDATES]
    anchors, classes, best = anchors[first], classes[first], best[first]
    corners = centres[anchors] - sizes[anchors] / 2
    boxes = np.concatenate([corners, corners + sizes[anchors]], axis=1)
    return suppressed(Detections(boxes, best, classes))


def suppressed(found: Detections, iou: float = _SUPPRESSION_IOU) -> Detections:
    """Keep, class by class, the best of detections that overlap by more than `iou`."""
    if not len(found.scores):
        return found
    corners, ends = found.boxes[:, :2], found.boxes[:, 2:]
    kept = np.asarray(
        cv2.dnn.NMSBoxesBatched(
            np.concatenate([corners, ends - corners], axis=1).tolist(),
            found.scores.tolist(),
            found.classes.astype(np.int32).tolist(),
            0.0,
            iou,
        ),
        np.int64,
    ).reshape(-1)
    return Detections(found.boxes[kept], found.scores[kept], found.classes[kept])


def _unknown_head(outputs: Outputs) -> ModelError:
    shapes = ", ".join(shape_text(np.asarray(output)) for output in outputs[:12])
    return ModelError(
        "The model's detections cannot be read.",
        why=f"Its outputs are {shapes}; known are one output 1 x (4 + classes) x anchors, its "
        "transpose, and 1 x boxes x 6 (x1 y1 x2 y2 score class).",
        fix="Give a metric of your own as module:attribute: a class derived from "
        "converters.metrics.detection.MeanAveragePrecision with its own `detections`.",
    )


_NOTHING = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))


def _matched(found: Detections, truth: Boxes, thresholds: Sequence[float]) -> list[Any]:
    best = np.argsort(-found.scores, kind="stable")
    matched = []
    for kind in np.union1d(found.classes, truth.classes).tolist():
        mine = best[found.classes[best] == kind][:_MOST_DETECTIONS]
        boxes = truth.boxes[truth.classes == kind]
        matches = _matches(found.boxes[mine], found.scores[mine], boxes, thresholds)
        matched.append([kind, len(boxes), found.scores[mine].tolist(), matches])
    return matched


def _matches(
    boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray, thresholds: Sequence[float]
) -> list[int]:
    """For each detection of one class in one image, the bits of thresholds at which it matches."""
    if not len(boxes) or not len(truth):
        return [0] * len(boxes)
    judge = _one_image(boxes, scores, truth)
    judge.params.iouThrs = np.array(thresholds)
    judge.ious = {(0, 0): judge.computeIoU(0, 0)}
    result = judge.evaluateImg(0, 0, _EVERYWHERE, _MOST_DETECTIONS)
    hits = result["dtMatches"] > 0
    bits = (hits * (1 << np.arange(len(thresholds)))[:, None]).sum(axis=0)
    return [int(value) for value in bits]


def _one_image(boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> Any:
    """A `COCOeval` that holds one image and one class."""
    try:
        from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]
    except ImportError as error:
        raise ToolchainError(
            "The metric map needs pycocotools.", fix="Install it: pip install edgeml[convert]"
        ) from error
    judge = COCOeval(iouType="bbox")
    judge._gts = {(0, 0): [_annotation(i, box) for i, box in enumerate(truth, 1)]}  # noqa: SLF001
    judge._dts = {  # noqa: SLF001
        (0, 0): [
            _annotation(i, box) | {"score": float(score)}
            for i, (box, score) in enumerate(zip(boxes, scores, strict=True), 1)
        ]
    }
    return judge


def _annotation(number: int, box: np.ndarray) -> dict[str, Any]:
    x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
    return {
        "id": number,
        "bbox": [x, y, width, height],
        "area": width * height,
        "iscrowd": 0,
        "ignore": 0,
    }


class _Ranking(msgspec.Struct, frozen=True):
    """All detections of one class, best first.

    `images` [m] tells where each was found, `hits` [T, m] whether it matches, `positives`
    [n] how many boxes each image has.
    """

    images: np.ndarray
    hits: np.ndarray
    positives: np.ndarray

    @staticmethod
    def of(found: Sequence[tuple[int, Any]], images: int, thresholds: int) -> "_Ranking":
        positives = np.zeros(images)
        for index, (count, _, _) in found:
            positives[index] = count
        scores = np.concatenate([np.asarray(s, np.float64) for _, (_, s, _) in found])
        bits = np.concatenate([np.asarray(m, np.int64) for _, (_, _, m) in found])
        where = np.concatenate([np.full(len(s), i, np.int64) for i, (_, s, _) in found])
        order = np.argsort(-scores, kind="mergesort")
        hits = (bits[order] >> np.arange(thresholds)[:, None]) & 1 > 0
        # What comes after the last hit at any threshold changes no average precision.
        last = np.flatnonzero(hits.any(axis=0))[-1:] + 1
        reach = int(last[0]) if last.size else 0
        return _Ranking(where[order][:reach], hits[:, :reach], positives)

    def precision(self, weights: np.ndarray) -> np.ndarray:
        """Average precision, averaged over the thresholds, [draws]."""
        total = np.zeros(len(weights))
        if not len(self.images):
            return total
        step = max(1, _CHUNK // len(self.images))
        for start in range(0, len(weights), step):
            part = weights[start : start + step]
            wanted = part @ self.positives
            drawn = part[:, self.images]
            ranked = np.cumsum(drawn, axis=1)
            for hits in self.hits:
                total[start : start + step] += _average_precision(
                    drawn[:, hits], ranked[:, hits], wanted
                )
        return total / len(self.hits)


def _average_precision(hits: np.ndarray, ranked: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The mean over 101 recalls of the best precision at that recall or more, [draws].

    Args:
        hits: the weight of each detection that matches, best first, [draws, k].
        ranked: the weight of all detections down to it, [draws, k].
        wanted: the weight of all labelled boxes, [draws].
    """
    draws, count = hits.shape
    if not count:
        return np.zeros(draws)
    tiny = np.finfo(float).tiny
    right = np.cumsum(hits, axis=1)
    recall = right / np.maximum(wanted, tiny)[:, None]
    precision = right / np.maximum(ranked, tiny)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.concatenate([best, np.zeros((draws, 1))], axis=1)
    # One search for all draws: each draw's recalls lie in an interval of their own.
    apart = 2.0 * np.arange(draws)[:, None]
    flat = np.searchsorted((np.minimum(recall, 1.0) + apart).ravel(), (_RECALLS + apart).ravel())
    reached = flat.reshape(draws, -1) - count * np.arange(draws)[:, None]
    return np.asarray(np.take_along_axis(best, np.clip(reached, 0, count), axis=1).mean(axis=1))
