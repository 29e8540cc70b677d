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


class Buffer:
    """An array that is kept between calls and made anew only when its shape or type changes."""

    def __init__(self) -> None:
        self._array: Array = np.empty(0, np.uint8)

    def of(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """The array, with whatever the last call left in it."""
        if self._array.shape != shape or self._array.dtype != dtype:
            self._array = np.empty(shape, dtype)
        return self._array


class LocateObject:
    """See `definition.Locate`."""

    def __init__(self, definition: Locate) -> None:
        dark = definition.polarity == "dark"
        self._kind = (cv2.THRESH_BINARY_INV if dark else cv2.THRESH_BINARY) | cv2.THRESH_OTSU
        self._margin = definition.margin
        self._min_area = definition.min_area
        self._gray, self._mask, self._labels, self._square = (Buffer() for _ in range(4))

    def __call__(self, image: Array) -> Array | None:
        gray = to_gray(image, self._gray)
        height, width = gray.shape
        mask = self._mask.of(gray.shape, np.uint8)
        labels = self._labels.of(gray.shape, np.int32)
        cv2.threshold(gray, 0, 255, self._kind, dst=mask)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, labels, connectivity=8)
        x, y, w, h, area = stats[1:].T
        whole = (x > 0) & (y > 0) & (x + w < width) & (y + h < height)
        whole &= area >= self._min_area * gray.size
        if not whole.any():
            return None
        best = int(np.argmax(np.where(whole, area, 0)))
        return self._cut_square(image, *stats[1 + best, :4].tolist())

    def _cut_square(self, image: Array, x: int, y: int, w: int, h: int) -> Array:
        side = round(max(w, h) * (1 + 2 * self._margin))
        left = x + w // 2 - side // 2
        top = y + h // 2 - side // 2
        height, width = image.shape[:2]
        inside = image[max(top, 0) : top + side, max(left, 0) : left + side]
        if inside.shape[:2] == (side, side):
            return inside
        return cv2.copyMakeBorder(
            inside,
            max(-top, 0),
            max(top + side - height, 0),
            max(-left, 0),
            max(left + side - width, 0),
            cv2.BORDER_REPLICATE,
            dst=self._square.of((side, side, *image.shape[2:]), image.dtype),
        )


class ConvertColour:
    """See `definition.Colour`."""

    def __init__(self, definition: Colour) -> None:
        self._to = definition.to
        self._out = Buffer()

    def __call__(self, image: Array) -> Array:
        if self._to == "gray":
            return to_gray(image, self._out)
        is_gray = image.ndim == _GRAY_AXES or image.shape[2] == 1
        if self._to == "bgr" and not is_gray:
            return image
        code = cv2.COLOR_GRAY2BGR if is_gray else cv2.COLOR_BGR2RGB
        return cv2.cvtColor(image, code, dst=self._out.of((*image.shape[:2], 3), image.dtype))


class ResizeImage:
    """See `definition.Resize`."""

    def __init__(self, definition: Resize) -> None:
        self._size = (definition.width, definition.height)
        self._out = Buffer()

    def __call__(self, image: Array) -> Array:
        width, height = self._size
        shrinks = image.shape[1] >= width and image.shape[0] >= height
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        out = self._out.of((height, width, *image.shape[2:]), image.dtype)
        return cv2.resize(image, self._size, dst=out, interpolation=how)


class ScaleValues:
    """See `definition.Scale`.

    A byte has 256 values: the formula is computed for each of them once, and a frame is one
    look-up, exact to the last bit and some times quicker than arithmetic on it.
    """

    def __init__(self, definition: Scale) -> None:
        self._factor = np.float32(definition.factor)
        channels = max(len(definition.mean), len(definition.std))
        self._mean = np.resize(np.asarray(definition.mean, np.float32), channels)
        self._std = np.resize(np.asarray(definition.std, np.float32), channels)
        every = np.arange(256, dtype=np.float32)[np.newaxis, :, np.newaxis]
        self._table = (every * self._factor - self._mean) / self._std
        self._out = Buffer()

    def __call__(self, image: Array) -> Array:
        channels = image.shape[2] if image.ndim > _GRAY_AXES else 1
        if self._mean.size not in {1, channels}:
            raise ValueError(f"{self._mean.size} means or stds for {channels} channels")
        out = self._out.of(image.shape, np.float32)
        if image.dtype == np.uint8:
            return cv2.LUT(image, self._table, dst=out)
        # What overflows becomes infinity, which `PipelineRunner.read` refuses by name.
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(image, self._factor, out=out)
            np.subtract(out, self._mean, out=out)
            np.divide(out, self._std, out=out)
        return out


class OrderAxes:
    """See `definition.Layout`."""

    def __init__(self, definition: Layout) -> None:
        self._to = definition.to
        self._out = Buffer()

    def __call__(self, image: Array) -> Array:
        colour = image if image.ndim > _GRAY_AXES else image[..., np.newaxis]
        ordered = colour
        if self._to == "NCHW":
            ordered = colour.transpose(2, 0, 1)
        elif self._to == "NHW":
            if colour.shape[2] != 1:
                raise ValueError(f"NHW holds one channel, the image has {colour.shape[2]}")
            ordered = colour[..., 0]
        out = self._out.of((1, *ordered.shape), image.dtype)
        np.copyto(out[0], ordered)
        return out


def to_gray(image: Array, out: Buffer) -> Array:
    """A gray image [H, W] from gray, which it only views, or from BGR."""
    if image.ndim == _GRAY_AXES:
        return image
    if image.shape[2] == 1:
        return image[..., 0]
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY, dst=out.of(image.shape[:2], image.dtype))


_MAKERS: dict[type, Callable[[Any], Step]] = {
    Locate: LocateObject,
    Colour: ConvertColour,
    Resize: ResizeImage,
    Scale: ScaleValues,
    Layout: OrderAxes,
}
