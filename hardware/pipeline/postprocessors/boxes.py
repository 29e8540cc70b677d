"""From candidate boxes to detections: overlaps suppressed, mapped to the frame, clipped to it."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.pipeline.postprocessors.interface import Seen, finite
from hardware.pipeline.results import Detections

MAX_CANDIDATES = 1000  # bounds the time that suppression takes when everything is above threshold

Floats = NDArray[np.float32]


def detections(
    boxes: Floats,
    scores: Floats,
    classes: NDArray[np.int64],
    seen: Seen,
    labels: tuple[str, ...],
    *,
    iou: float,
    max_boxes: int,
    keypoints: Floats | None = None,
) -> Detections:
    """The boxes that stay, best first.

    Args:
        boxes: [n, 4] x1 y1 x2 y2 in pixels of the model's picture; all are above the threshold.
        scores: [n].
        classes: [n]; only boxes of the same class suppress one another.
        seen: what maps them to the frame.
        labels: a name for each class.
        iou: of two boxes that overlap by more, the better one stays.
        max_boxes: how many stay at most.
        keypoints: [n, k, 2] in pixels of the model's picture.

    Raises:
        ModelError: a box has a coordinate that is no number.
    """
    finite(boxes)
    kept = suppress(boxes, scores, classes, iou)[:max_boxes]
    left, top, right, bottom = seen.bounds
    mapped = seen.to_frame.points(boxes[kept])
    np.clip(mapped[:, 0::2], left, right, out=mapped[:, 0::2])
    np.clip(mapped[:, 1::2], top, bottom, out=mapped[:, 1::2])
    points = None if keypoints is None else seen.to_frame.points(keypoints[kept])
    found = classes[kept]
    return Detections(
        boxes=mapped,
        scores=scores[kept],
        classes=found,
        names=tuple(labels[index] for index in found),
        keypoints=points,
    )


def suppress(
    boxes: Floats, scores: Floats, classes: NDArray[np.int64], iou: float
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression within each class; indices of what stays, best first."""
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    if len(order) < 2:  # noqa: PLR2004 -- one box overlaps nothing
        return order
    corners = boxes[order].astype(np.float64)
    corners[:, 2:] -= corners[:, :2]  # OpenCV wants x, y, width, height
    np.maximum(corners[:, 2:], 0, out=corners[:, 2:])
    # The stubs name lists; arrays are taken without making them.
    choose: Any = cv2.dnn.NMSBoxesBatched
    kept = choose(corners, scores[order], classes[order], 0.0, iou)
    return order[np.sort(np.asarray(kept, np.int64).reshape(-1))]
