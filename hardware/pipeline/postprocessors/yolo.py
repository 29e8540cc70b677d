"""YOLO heads: v5 (anchors decoded in the graph), v8 (anchor-free), and end to end (no overlaps).

The exports of these families decode to pixels of the model's picture inside the graph; what is
left is to choose, to suppress overlaps and to map back.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

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
    finite,
    misfit,
    output,
)
from hardware.pipeline.results import Detections

Floats = NDArray[np.float32]


class Yolo(PostProcessor, frozen=True, kw_only=True, tag="yolo"):
    """Boxes of a YOLO model.

    `v8`: [1, 4 + classes, n]; `v5`: [1, n, 5 + classes], the fifth the objectness; both with
    centre x, centre y, width, height. `end_to_end`: [1, n, 6] of x1 y1 x2 y2 score class.
    """

    task: ClassVar[str] = "detection"
    threshold: ClassVar[float] = 0.25

    head: Literal["v5", "v8", "end_to_end"]
    iou: Annotated[float, Meta(ge=0, le=1)] = 0.5
    max_boxes: Annotated[int, Meta(ge=1, le=1000)] = 100

    def wrong(self, labels: tuple[str, ...]) -> str:
        """Labels name the classes."""
        return "" if labels else "a detection needs labels"

    def reader(self, settings: Settings) -> Reader:
        """The reader of one pipeline."""
        decode = {"v5": self._v5, "v8": self._v8, "end_to_end": self._end_to_end}[self.head]

        def read(outputs: Sequence[Array], seen: Seen) -> Detections:
            head = output(outputs, 0, "boxes")
            if head.ndim != 3 or head.shape[0] != 1:  # noqa: PLR2004 -- a batch of one
                raise misfit(f"A {self.head} head has three axes, this is {list(head.shape)}")
            boxes, scores, classes = decode(head[0].astype(np.float32, copy=False), settings)
            return detections(
                boxes,
                scores,
                classes,
                seen,
                settings.labels,
                iou=self.iou,
                max_boxes=self.max_boxes,
            )

        return read

    def _v8(self, head: Floats, settings: Settings) -> tuple[Floats, Floats, NDArray[np.int64]]:
        self._fits(head.shape[0], 4 + len(settings.labels), settings)
        likely = head[4:].max(axis=0)
        finite(likely)
        kept = np.flatnonzero(likely >= settings.threshold)
        return _corners(head[:4, kept].T), likely[kept], head[4:, kept].argmax(axis=0)

    def _v5(self, head: Floats, settings: Settings) -> tuple[Floats, Floats, NDArray[np.int64]]:
        self._fits(head.shape[1], 5 + len(settings.labels), settings)
        objects = head[:, 4]
        finite(objects)
        # A class score is at most one: what is no object cannot become one.
        some = np.flatnonzero(objects >= settings.threshold)
        scores = head[some, 5:] * objects[some, np.newaxis]
        finite(scores)
        likely = scores.max(axis=1, initial=0.0)
        above = likely >= settings.threshold
        return _corners(head[some[above], :4]), likely[above], scores[above].argmax(axis=1)

    def _end_to_end(
        self, head: Floats, settings: Settings
    ) -> tuple[Floats, Floats, NDArray[np.int64]]:
        self._fits(head.shape[1], 6, settings)
        finite(head[:, 4])
        found = head[head[:, 4] >= settings.threshold]
        classes = class_indices(found[:, 5], len(settings.labels))
        return np.ascontiguousarray(found[:, :4]), found[:, 4].copy(), classes

    def _fits(self, found: int, wanted: int, settings: Settings) -> None:
        if found != wanted:
            raise misfit(
                f"A {self.head} head with {len(settings.labels)} labels has {wanted} values a box, "
                f"this has {found}"
            )


def class_indices(values: Array, count: int) -> NDArray[np.int64]:
    """Class numbers that a model answers as numbers of any type.

    Raises:
        ModelError: one has no label.
    """
    finite(values)
    found = values.astype(np.int64)
    if found.size and not 0 <= found.min() <= found.max() < count:
        raise misfit(f"It has {count} labels, the model answers classes up to {found.max()}")
    return found


def _corners(boxes: Floats) -> Floats:
    """Centre and size to two corners; [n, 4]."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
