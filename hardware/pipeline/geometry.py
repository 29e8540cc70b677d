"""Where a pixel of the model's picture lies in the frame: regions, letterboxes, mappings.

Coordinates are of edges, not of centres: a picture of width `w` spans 0 to `w`.
"""

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hardware.pipeline.definition import Region

Image = NDArray[np.uint8]


class Mapping(msgspec.Struct, frozen=True):
    """Takes (x, y) of a picture to (x * scale_x + x0, y * scale_y + y0) of the one before it."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    x0: float = 0.0
    y0: float = 0.0

    def then(self, outer: "Mapping") -> "Mapping":
        """This mapping, and after it another."""
        return Mapping(
            self.scale_x * outer.scale_x,
            self.scale_y * outer.scale_y,
            self.x0 * outer.scale_x + outer.x0,
            self.y0 * outer.scale_y + outer.y0,
        )

    def points(self, xy: NDArray[Any]) -> NDArray[np.float32]:
        """Map points [..., 2k] of x and y in turns; float32."""
        count = xy.shape[-1] // 2
        scale = np.tile(np.array([self.scale_x, self.scale_y], np.float32), count)
        offset = np.tile(np.array([self.x0, self.y0], np.float32), count)
        return (xy * scale + offset).astype(np.float32, copy=False)


IDENTITY = Mapping()


class Placement(msgspec.Struct, frozen=True):
    """Where a letterbox puts a picture: its left top corner and its size, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def mapping(self, width: int, height: int) -> Mapping:
        """From the letterbox to the picture of this size."""
        scale_x, scale_y = width / self.width, height / self.height
        return Mapping(scale_x, scale_y, -self.left * scale_x, -self.top * scale_y)


def place(size: tuple[int, int], into: tuple[int, int], *, centred: bool) -> Placement:
    """Fit a picture (width, height) into another, its aspect kept; at least a pixel."""
    scale = min(into[0] / size[0], into[1] / size[1])
    width = max(1, min(into[0], round(size[0] * scale)))
    height = max(1, min(into[1], round(size[1] * scale)))
    left, top = ((into[0] - width) // 2, (into[1] - height) // 2) if centred else (0, 0)
    return Placement(left, top, width, height)


def window(frame: Image, region: "Region") -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what a region names: at least one pixel."""
    height, width = frame.shape[:2]
    left = min(round(region.x * width), width - 1)
    top = min(round(region.y * height), height - 1)
    right = max(left + 1, min(width, left + round(region.width * width)))
    bottom = max(top + 1, min(height, top + round(region.height * height)))
    return left, top, right, bottom


def cut(frame: Image, region: "Region") -> Image:
    """The part of a frame that a region names: at least one pixel, a view."""
    left, top, right, bottom = window(frame, region)
    return frame[top:bottom, left:right]
