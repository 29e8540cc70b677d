"""The pre-processing steps, each a small callable with its own buffer.

A step takes an array and returns an array (its buffer, overwritten by the next call), or
None where there is nothing to infer. `build` is the explicit table from definition to step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.pipeline.definition import Colour, Layout, Locate, PreStep, Resize, Scale

Array = NDArray[Any]
Step = Callable[[Array], Array | None]

_GRAY_AXES = 2


def build(definitions: Sequence[PreStep]) -> list[Step]:
    """The steps of a pipeline, in order."""
    return [_MAKERS[type(definition)](definition) for definition in definitions]


class LocateObject:
    """See `definition.Locate`."""

    def __init__(self, definition: Locate) -> None:
        self._invert = definition.polarity == "dark"
        self._margin = definition.margin
        self._min_area = definition.min_area

    def __call__(self, image: Array) -> Array | None:
        gray = to_gray(image)
        kind = cv2.THRESH_BINARY_INV if self._invert else cv2.THRESH_BINARY
        _, mask = cv2.threshold(gray, 0, 255, kind | cv2.THRESH_OTSU)
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        height, width = gray.shape
        best: tuple[int, int, int, int] | None = None
        best_area = self._min_area * gray.size
        for x, y, w, h, area in stats[1:count].tolist():
            inside = x > 0 and y > 0 and x + w < width and y + h < height
            if inside and area >= best_area:
                best, best_area = (x, y, w, h), area
        return None if best is None else self._cut_square(image, gray, best)

    def _cut_square(self, image: Array, gray: Array, box: tuple[int, int, int, int]) -> Array:
        x, y, w, h = box
        side = round(max(w, h) * (1 + 2 * self._margin))
        left = x + w // 2 - side // 2
        top = y + h // 2 - side // 2
        height, width = gray.shape
        if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
            return image[top : top + side, left : left + side]
        return cv2.copyMakeBorder(
            image[max(top, 0) : top + side, max(left, 0) : left + side],
            max(-top, 0),
            max(top + side - height, 0),
            max(-left, 0),
            max(left + side - width, 0),
            cv2.BORDER_REPLICATE,
        )


class ConvertColour:
    """See `definition.Colour`."""

    def __init__(self, definition: Colour) -> None:
        self._to = definition.to

    def __call__(self, image: Array) -> Array:
        if self._to == "gray":
            return to_gray(image)
        if image.ndim == _GRAY_AXES or image.shape[2] == 1:
            return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if self._to == "rgb" else image


class ResizeImage:
    """See `definition.Resize`."""

    def __init__(self, definition: Resize) -> None:
        self._size = (definition.width, definition.height)
        self._out: Array | None = None

    def __call__(self, image: Array) -> Array:
        shrinks = image.shape[1] >= self._size[0] and image.shape[0] >= self._size[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        if self._out is None or self._out.shape[2:] != image.shape[2:]:
            self._out = np.empty((self._size[1], self._size[0], *image.shape[2:]), image.dtype)
        return cv2.resize(image, self._size, dst=self._out, interpolation=how)


class ScaleValues:
    """See `definition.Scale`: one multiplication and one addition, in place."""

    def __init__(self, definition: Scale) -> None:
        std = np.asarray(definition.std, np.float32)
        mean = np.asarray(definition.mean, np.float32)
        if not std.all():
            raise ValueError("std must not be zero")
        self._by = np.float32(definition.factor) / std
        self._plus = -mean / std
        self._out: NDArray[np.float32] | None = None

    def __call__(self, image: Array) -> Array:
        if self._out is None or self._out.shape != image.shape:
            self._out = np.empty(image.shape, np.float32)
        np.multiply(image, self._by, out=self._out, casting="unsafe", dtype=np.float32)
        self._out += self._plus
        return self._out


class OrderAxes:
    """See `definition.Layout`."""

    def __init__(self, definition: Layout) -> None:
        self._to = definition.to
        self._out: Array | None = None

    def __call__(self, image: Array) -> Array:
        if self._to == "NHW":
            return np.ascontiguousarray(image[np.newaxis])
        colour = image if image.ndim > _GRAY_AXES else image[..., np.newaxis]
        ordered = colour.transpose(2, 0, 1) if self._to == "NCHW" else colour
        if self._out is None or self._out.shape[1:] != ordered.shape:
            self._out = np.empty((1, *ordered.shape), image.dtype)
        np.copyto(self._out[0], ordered)
        return self._out


def to_gray(image: Array) -> Array:
    """A gray image [H, W] from gray or BGR."""
    if image.ndim == _GRAY_AXES:
        return image
    return image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


_MAKERS: dict[type, Callable[[Any], Step]] = {
    Locate: LocateObject,
    Colour: ConvertColour,
    Resize: ResizeImage,
    Scale: ScaleValues,
    Layout: OrderAxes,
}
