"""SSD heads: boxes with a score a class, decoded in the graph or offsets from anchors."""

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from hardware.pipeline.postprocessors.boxes import detections
from hardware.pipeline.postprocessors.interface import (
    Array,
    PostProcessor,
    Reader,
    Seen,
    Settings,
    misfit,
    output,
    scores_of,
    softmax,
)
from hardware.pipeline.postprocessors.yolo import class_indices
from hardware.pipeline.results import Detections

Floats = NDArray[np.float32]
Output = Annotated[int, Meta(ge=0, le=63)]
Size = Annotated[float, Meta(gt=0, le=4)]
Positive = Annotated[float, Meta(gt=0, le=100)]


class Anchors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prior boxes of an SSD, map by map, row by row, ratio by ratio.

    Each cell of a map of `maps` cells a side has one box for each of `ratios` (width to height)
    of the map's size in `sizes`, and one square of the geometric mean of this size and the next.
    Source: W. Liu et al., SSD: Single Shot MultiBox Detector (2016), section 2.2.
    """

    maps: Annotated[tuple[Annotated[int, Meta(ge=1, le=512)], ...], Meta(min_length=1)]
    sizes: tuple[Size, ...]
    ratios: tuple[Positive, ...] = (1.0, 2.0, 0.5)
    variances: tuple[Positive, Positive, Positive, Positive] = (0.1, 0.1, 0.2, 0.2)

    def __post_init__(self) -> None:
        """Hold the sizes to one a map, and the one after the last."""
        if len(self.sizes) != len(self.maps) + 1:
            raise ValueError(
                f"{len(self.maps)} maps need {len(self.maps) + 1} sizes, there are "
                f"{len(self.sizes)}: the last is the one that would follow"
            )

    def boxes(self) -> Floats:
        """All anchors, [n, 4] centre x, centre y, width, height as fractions."""
        found = []
        for cells, (size, after) in zip(self.maps, itertools.pairwise(self.sizes), strict=True):
            shapes = [(size * math.sqrt(r), size / math.sqrt(r)) for r in self.ratios]
            shapes.append((math.sqrt(size * after),) * 2)
            y, x = np.divmod(np.arange(cells * cells), cells)
            centres = np.repeat((np.stack([x, y], 1) + 0.5) / cells, len(shapes), axis=0)
            found.append(np.hstack([centres, np.tile(shapes, (cells * cells, 1))]))
        return np.concatenate(found).astype(np.float32)


class Ssd(PostProcessor, frozen=True, kw_only=True, tag="ssd"):
    """Boxes of an SSD.

    `boxes`, `scores` and `classes` number the outputs. Boxes are [1, n, 4] in fractions of the
    picture, `order` says of which axis first; with `anchors` they are offsets from these. With
    `classes`, scores are [1, n] beside class numbers [1, n]; without, a score for each class,
    [1, n, classes] or [1, classes, n], of which the first is none where there is a `background`.
    """

    task: ClassVar[str] = "detection"
    uses: ClassVar[frozenset[str]] = frozenset({"softmax", "threshold"})

    boxes: Output = 0
    scores: Output = 1
    classes: Output | None = None
    order: Literal["xyxy", "yxyx"] = "xyxy"
    background: bool = False
    anchors: Anchors | None = None
    iou: Annotated[float, Meta(ge=0, le=1)] = 0.5
    max_boxes: Annotated[int, Meta(ge=1, le=1000)] = 100

    def wrong(self, labels: tuple[str, ...]) -> str:
        """Labels name the classes, the background not among them."""
        return "" if labels else "a detection needs labels"

    def reader(self, settings: Settings) -> Reader:
        """The reader of one pipeline."""
        anchors = None if self.anchors is None else self.anchors.boxes()

        def read(outputs: Sequence[Array], seen: Seen) -> Detections:
            boxes = output(outputs, self.boxes, "boxes").astype(np.float32, copy=False)
            boxes = boxes.reshape(-1, 4) if boxes.size % 4 == 0 else boxes
            if boxes.ndim != 2:  # noqa: PLR2004
                raise misfit(f"Boxes have four values, this is {list(boxes.shape)}")
            scores, classes = self._scored(outputs, len(boxes), settings)
            kept = np.flatnonzero(scores >= settings.threshold)
            return detections(
                self._pixels(boxes[kept], anchors, len(boxes), kept, seen),
                scores[kept],
                class_indices(classes[kept], len(settings.labels)),
                seen,
                settings.labels,
                iou=self.iou,
                max_boxes=self.max_boxes,
            )

        return read

    def _scored(
        self, outputs: Sequence[Array], count: int, settings: Settings
    ) -> tuple[Floats, Array]:
        """The best score of each box, and its class."""
        scores = scores_of(outputs, self.scores)
        if self.classes is not None:
            classes = output(outputs, self.classes, "classes").reshape(-1)
            if scores.size != count or classes.size != count:
                raise misfit(
                    f"It has {count} boxes, {scores.size} scores and {classes.size} classes"
                )
            return scores.reshape(-1), classes
        wanted = len(settings.labels) + self.background
        if scores.shape[-2:] == (count, wanted):
            each = scores.reshape(count, wanted)
        elif scores.shape[-2:] == (wanted, count):
            each = scores.reshape(wanted, count).T
        else:
            raise misfit(
                f"{count} boxes of {wanted} classes are wanted, scores are {list(scores.shape)}"
            )
        if settings.softmax:
            each = softmax(each)
        each = each[:, int(self.background) :]
        return each.max(axis=1), each.argmax(axis=1)

    def _pixels(
        self, boxes: Floats, anchors: Floats | None, count: int, kept: Array, seen: Seen
    ) -> Floats:
        """Corners in pixels of the model's picture."""
        if self.order == "yxyx":
            boxes = boxes[:, [1, 0, 3, 2]]
        if self.anchors is not None and anchors is not None:
            if len(anchors) != count:
                raise misfit(f"The pipeline has {len(anchors)} anchors, the model {count} boxes")
            prior = anchors[kept]
            scaled = boxes * np.array(self.anchors.variances, np.float32)
            centres = prior[:, :2] + scaled[:, :2] * prior[:, 2:]
            # An offset of 50 is no box any more, but still a number.
            half = prior[:, 2:] * np.exp(np.minimum(scaled[:, 2:], 50.0)) / 2
            boxes = np.concatenate([centres - half, centres + half], axis=1)
        return boxes * np.array(seen.size * 2, np.float32)
