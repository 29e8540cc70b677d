"""Draws a result on its frame: boxes with labels, or the headline of any other result.

OpenCV is imported here and at the first call: who never looks pays nothing.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ModelError
from hardware.pipeline.results import Detections, Text

if TYPE_CHECKING:
    from hardware.pipeline import Region

Image = NDArray[np.uint8]

JPEG_QUALITY = 85
_SURE = (80, 200, 80)  # BGR
_UNSURE = (60, 160, 240)
_QUIET = (170, 170, 170)
_INK = (20, 20, 20)
_COLOUR_AXES = 3


def annotate(image: NDArray[Any], result: Any, region: "Region | None" = None) -> Image:
    """A colour picture of the frame with its result.

    Args:
        image: uint8 HxW, HxWx1 or HxWx3 (BGR); it is not changed.
        result: what the pipeline read; None where it located nothing.
        region: the part that was looked at, framed where it is not all.

    Returns:
        uint8 HxWx3 (BGR), a new array.

    Raises:
        ModelError: the frame is no picture (a sound, a tensor).
    """
    import cv2

    picture = _colour(image)
    height, width = picture.shape[:2]
    scale = max(0.4, min(width, height) / 720)
    thick = max(1, round(2 * scale))
    if region is not None:
        left, top = round(region.x * width), round(region.y * height)
        right = round((region.x + region.width) * width) - 1
        bottom = round((region.y + region.height) * height) - 1
        cv2.rectangle(picture, (left, top), (right, bottom), _QUIET, thick)
    if isinstance(result, Detections):
        for box, name, score in zip(result.boxes, result.names, result.scores, strict=True):
            x1, y1, x2, y2 = (round(float(value)) for value in box)
            cv2.rectangle(picture, (x1, y1), (x2, y2), _SURE, thick)
            _label(picture, f"{name} {score:.2f}", (x1, y1), scale, _SURE)
        for point in [] if result.keypoints is None else result.keypoints.reshape(-1, 2):
            cv2.circle(picture, (round(float(point[0])), round(float(point[1]))), thick, _SURE, -1)
    else:
        colour = _QUIET if result is None else _SURE if result.confident else _UNSURE
        _label(picture, headline(result), (0, 0), scale, colour)
    return picture


def headline(result: Any) -> str:
    """A result in a few words: `seven 0.98`, `3 objects`, `nothing`."""
    if result is None:
        return "nothing located"
    if isinstance(result, Detections):
        return f"{len(result.names)} object{'s' if len(result.names) != 1 else ''}"
    shown = result.text if isinstance(result, Text) else result.label
    return f"{shown or 'nothing'} {result.confidence:.2f}"


def jpeg(picture: Image) -> bytes:
    """A picture as JPEG."""
    import cv2

    made, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not made:
        raise ModelError("The picture cannot be made.", why="OpenCV cannot encode it as JPEG.")
    return data.tobytes()


def _colour(image: NDArray[Any]) -> Image:
    import cv2

    if image.dtype == np.uint8 and image.size:
        if image.ndim == _COLOUR_AXES and image.shape[2] == _COLOUR_AXES:
            return np.array(image, np.uint8)
        if image.ndim == _COLOUR_AXES - 1 or (image.ndim == _COLOUR_AXES and image.shape[2] == 1):
            gray = image.reshape(image.shape[:2])
            return np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), np.uint8)
    raise ModelError(
        "The frame cannot be shown.",
        why=f"It is {image.dtype.name}{list(image.shape)}, no picture.",
    )


def _label(
    picture: Image, text: str, at: tuple[int, int], scale: float, colour: tuple[int, int, int]
) -> None:
    """Dark text on a filled ground, above the point where there is room, else below it."""
    import cv2

    text = text.encode("ascii", "replace").decode()  # all that OpenCV's font has
    font, thick = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(scale * 1.5))
    (width, height), below = cv2.getTextSize(text, font, scale, thick)
    tall = height + below + 4
    x = max(0, min(at[0], picture.shape[1] - width - 4))
    y = at[1] - tall if at[1] >= tall else at[1]
    cv2.rectangle(picture, (x, y), (x + width + 4, y + tall), colour, -1)
    cv2.putText(picture, text, (x + 2, y + height + 2), font, scale, _INK, thick, cv2.LINE_AA)
