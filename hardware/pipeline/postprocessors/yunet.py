"""YuNet's head: faces with five points each, from three strides.

Source: W. Wu, H. Peng, S. Yu, YuNet: A Tiny Millisecond-level Face Detector (2023).
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

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
)
from hardware.pipeline.results import Detections

Floats = NDArray[np.float32]
KEYPOINTS = 5
KINDS = 4


class YuNet(PostProcessor, frozen=True, kw_only=True, tag="yunet"):
    """Outputs class, objectness, box and points, each for all strides in turn.

    A box's centre is (cell + offset) * stride, its size exp(offset) * stride, its score
    sqrt(class * objectness).
    """

    task: ClassVar[str] = "detection"

    strides: Annotated[tuple[Annotated[int, Meta(ge=1, le=512)], ...], Meta(min_length=1)] = (
        8,
        16,
        32,
    )
    iou: Annotated[float, Meta(ge=0, le=1)] = 0.45
    max_boxes: Annotated[int, Meta(ge=1, le=1000)] = 100

    def wrong(self, labels: tuple[str, ...]) -> str:
        """There is one class."""
        return "" if len(labels) == 1 else "yunet finds one class and needs its one label"

    def reader(self, settings: Settings) -> Reader:
        """The reader of one pipeline."""

        def read(outputs: Sequence[Array], seen: Seen) -> Detections:
            levels = [
                self._level(outputs, index, seen, settings.threshold)
                for index in range(len(self.strides))
            ]
            boxes, scores, points = (np.concatenate(part) for part in zip(*levels, strict=True))
            return detections(
                boxes,
                scores,
                np.zeros(len(scores), np.int64),
                seen,
                settings.labels,
                iou=self.iou,
                max_boxes=self.max_boxes,
                keypoints=points,
            )

        return read

    def _level(
        self, outputs: Sequence[Array], index: int, seen: Seen, threshold: float
    ) -> tuple[Floats, Floats, Floats]:
        """Boxes, scores and points of one stride that reach the threshold."""
        count, stride = len(self.strides), self.strides[index]
        if len(outputs) != KINDS * count:
            raise misfit(f"{count} strides have {KINDS * count} outputs, this has {len(outputs)}")
        columns, rows = seen.size[0] // stride, seen.size[1] // stride
        likely = scores_of(outputs, index).reshape(-1)
        objects = scores_of(outputs, count + index).reshape(-1)
        if likely.size != rows * columns or objects.size != likely.size:
            raise misfit(f"Stride {stride} has {rows * columns} cells, the model {likely.size}")
        scores = np.sqrt(np.clip(likely, 0, 1) * np.clip(objects, 0, 1))
        kept = np.flatnonzero(scores >= threshold)
        offsets = output(outputs, 2 * count + index, "boxes").reshape(likely.size, 4)[kept]
        moved = output(outputs, 3 * count + index, "points")
        moved = moved.reshape(likely.size, KEYPOINTS, 2)[kept]
        cells = np.stack([kept % columns, kept // columns], axis=1).astype(np.float32)
        centres = (cells + offsets[:, :2]) * stride
        half = np.exp(np.minimum(offsets[:, 2:], 50.0)) * (stride / 2)
        boxes = np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)
        return boxes, scores[kept], (cells[:, np.newaxis] + moved) * stride
