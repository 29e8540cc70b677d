"""The pre-processing steps, each a small callable with its own buffer.

A step takes an array and returns an array (its buffer, overwritten by the next call), or
None where there is nothing to infer. `build` is the explicit table from definition to step.
A step that moves pixels has a `mapping` from what it made last to what it was given.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.pipeline.audio import MakeMfcc
from hardware.pipeline.definition import (
    Colour,
    Layout,
    Letterbox,
    Locate,
    Mfcc,
    PreStep,
    Resize,
    Scale,
)
from hardware.pipeline.geometry import IDENTITY, Mapping, Placement, place

Array = NDArray[Any]
Step = Callable[[Array], Array | None]

_GRAY_AXES = 2
_COLOUR_AXES = 3


def build(definitions: Sequence[PreStep]) -> list[Step]:
    """The steps of a pipeline, in order; what computes the same bits in less time replaces them.

    To exchange blue and red commutes with a resize, which then moves fewer bytes before it; and
    with scale and layout it is one pass over the planes.
    """
    wanted = list(definitions)
    for index in range(len(wanted) - 1):
        pair = wanted[index], wanted[index + 1]
        if pair[0] == Colour(to="rgb") and isinstance(pair[1], Resize | Letterbox):
            wanted[index], wanted[index + 1] = pair[1], pair[0]
    found: list[Step] = []
    match wanted:
        case [*before, Colour(to="rgb"), Scale() as scale, Layout(to="NCHW")]:
            wanted, found = before, [ScaledPlanes(scale, swap=True)]
        case [*before, Scale() as scale, Layout(to="NCHW")]:
            wanted, found = before, [ScaledPlanes(scale, swap=False)]
    return [_MAKERS[type(definition)](definition) for definition in wanted] + found


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
        self.mapping = IDENTITY

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
        self.mapping = Mapping(x0=left, y0=top)
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
        self.mapping = IDENTITY

    def __call__(self, image: Array) -> Array:
        width, height = self._size
        self.mapping = Mapping(image.shape[1] / width, image.shape[0] / height)
        out = self._out.of((height, width, *image.shape[2:]), image.dtype)
        return cv2.resize(image, self._size, dst=out, interpolation=_how(image, width, height))


class FitIntoBox:
    """See `definition.Letterbox`. The bars are painted when the image's size changes."""

    def __init__(self, definition: Letterbox) -> None:
        self._size = (definition.width, definition.height)
        self._fill = definition.fill
        self._centred = definition.align == "centre"
        self._out: Array = np.empty(0, np.uint8)
        self._inside: Array = self._out
        self._made_for: tuple[Any, ...] = ()
        self.mapping = IDENTITY

    def __call__(self, image: Array) -> Array:
        if (image.shape, image.dtype) != self._made_for:
            self._make(image)
        height, width = self._inside.shape[:2]
        how = _how(image, width, height)
        cv2.resize(image, (width, height), dst=self._inside, interpolation=how)
        return self._out

    def _make(self, image: Array) -> None:
        size = (image.shape[1], image.shape[0])
        placement: Placement = place(size, self._size, centred=self._centred)
        shape = (self._size[1], self._size[0], *image.shape[2:])
        if self._out.shape != shape or self._out.dtype != image.dtype:
            self._out = np.empty(shape, image.dtype)
        self._out.fill(self._fill)
        left, top = placement.left, placement.top
        self._inside = self._out[top : top + placement.height, left : left + placement.width]
        self.mapping = placement.mapping(*size)
        self._made_for = image.shape, image.dtype


class ScaleValues:
    """See `definition.Scale`.

    A byte has 256 values: the formula is computed for each of them once, and a frame is one
    look-up, exact to the last bit and some times quicker than arithmetic on it.
    """

    def __init__(self, definition: Scale) -> None:
        self._factor = np.float32(definition.factor)
        self._mean, self._std = _normalisation(definition)
        self._table = _table(definition)
        self._out = Buffer()

    def __call__(self, image: Array) -> Array:
        channels = image.shape[2] if image.ndim > _GRAY_AXES else 1
        if self._mean.size not in {1, channels}:
            raise ValueError(f"{self._mean.size} means or stds for {channels} channels")
        out = self._out.of(image.shape, np.float32)
        if image.dtype == np.uint8 and image.ndim <= _COLOUR_AXES:
            return cv2.LUT(image, self._table, dst=out)
        # What overflows becomes infinity, which `PipelineRunner.read` refuses by name.
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(image, self._factor, out=out)
            np.subtract(out, self._mean, out=out)
            np.divide(out, self._std, out=out)
        return out


class ScaledPlanes:
    """Blue and red exchanged if asked for, scaled and laid out as NCHW, plane by plane."""

    def __init__(self, definition: Scale, *, swap: bool) -> None:
        self._swap = swap
        self._table = _table(definition)[0].T.copy()
        self._planes, self._out = Buffer(), Buffer()
        self._otherwise: list[Callable[[Array], Array]] = [
            *([ConvertColour(Colour(to="rgb"))] if swap else []),
            ScaleValues(definition),
            OrderAxes(Layout(to="NCHW")),
        ]

    def __call__(self, image: Array) -> Array:
        channels = image.shape[2] if image.ndim == _COLOUR_AXES else 1
        is_known = image.dtype == np.uint8 and image.ndim <= _COLOUR_AXES and channels in {1, 3}
        if not is_known or (channels == 1 and (self._swap or len(self._table) > 1)):
            for step in self._otherwise:
                image = step(image)
            return image
        out = self._out.of((1, channels, *image.shape[:2]), np.float32)
        if channels == 1:
            cv2.LUT(image, self._table[0], dst=out[0, 0])
            return out
        planes = self._planes.of((3, *image.shape[:2]), np.uint8)
        cv2.split(image, [planes[2], planes[1], planes[0]] if self._swap else list(planes))
        for channel, plane in enumerate(planes):
            cv2.LUT(plane, self._table[channel % len(self._table)], dst=out[0, channel])
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


def _how(image: Array, width: int, height: int) -> int:
    shrinks = image.shape[1] >= width and image.shape[0] >= height
    return cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR


def _normalisation(definition: Scale) -> tuple[Array, Array]:
    """Means and deviations, one or three of each."""
    channels = max(len(definition.mean), len(definition.std))
    mean = np.resize(np.asarray(definition.mean, np.float32), channels)
    return mean, np.resize(np.asarray(definition.std, np.float32), channels)


def _table(definition: Scale) -> Array:
    """What each byte becomes, [1, 256, channels]."""
    mean, std = _normalisation(definition)
    every = np.arange(256, dtype=np.float32)[np.newaxis, :, np.newaxis]
    return np.asarray((every * np.float32(definition.factor) - mean) / std)


_MAKERS: dict[type, Callable[[Any], Step]] = {
    Locate: LocateObject,
    Colour: ConvertColour,
    Resize: ResizeImage,
    Letterbox: FitIntoBox,
    Mfcc: MakeMfcc,
    Scale: ScaleValues,
    Layout: OrderAxes,
}
