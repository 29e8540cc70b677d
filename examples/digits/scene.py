"""What the camera looks at: a wall, a slatted belt with digits on it, and the camera itself.

`Belt` is what is really there, the same in any light; `Camera` makes of it what a sensor
would see: light, blur and noise are its knobs. Everything follows from seeds, and any part of
any frame can be made by itself, so the video and the data sets come from the same renderer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import UserError
from examples.digits.data import SIZE, Digits

Image = NDArray[np.uint8]

WIDTH, HEIGHT = 480, 270
BELT_TOP, BELT_BOTTOM = 40, 230
SPACING = 120  # pixels of belt for each digit: at most one fits wholly into the region
SLAT = 40  # divides SPACING, so that the belt closes in a ring without a seam
MIN_DIGITS = 5  # a shorter ring would show the same digit twice in one frame
_TILE = 84
_ENLARGED = 2.4
_INK = (206, 216, 222)  # BGR
_MARGIN = 3  # a digit this near to the region's border is not wholly inside


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    x: int
    y: int
    width: int
    height: int


REGION = Box(184, 79, 112, 112)  # pipeline.toml says the same in fractions of the frame
FRAME = Box(0, 0, WIDTH, HEIGHT)


@dataclass(frozen=True)
class Conditions:
    """How the camera sees: light (1 is nominal), blur and noise (standard deviations).

    Blur is in pixels, noise in grey levels.
    """

    light: float = 1.0
    blur: float = 0.0
    noise: float = 4.0

    def __post_init__(self) -> None:
        bounds = {"light": (0.05, 3.0), "blur": (0.0, 10.0), "noise": (0.0, 80.0)}
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(
                    f"The camera cannot see with {name} {value}.",
                    why=f"It lies outside {low} to {high}.",
                )


class Belt:
    """Digits on a slatted belt that closes in a ring, in front of a wall.

    A frame is the belt moved on by `offset` pixels; digits move to the left.
    """

    def __init__(self, digits: Digits, seed: Sequence[int]) -> None:
        if len(digits) < MIN_DIGITS:
            raise UserError(
                f"A belt of {len(digits)} digits is too short.",
                why=f"It would show a digit twice at a time; {MIN_DIGITS} are needed.",
            )
        rng = np.random.default_rng([*seed, 1])
        self.labels = digits.labels
        self.length = SPACING * len(digits)
        self._wall = _wall(np.random.default_rng([*seed, 2]))
        strip = _slats(self.length, rng)
        self.boxes = tuple(
            _lay(strip, image, SPACING * place + SPACING // 2, rng)
            for place, image in enumerate(digits.images)
        )
        self._strip = np.concatenate([strip, strip[:, :WIDTH]], axis=1)

    def view(self, offset: int, part: Box = FRAME) -> Image:
        """A part of the scene as it is, [height, width, 3] BGR, with the belt at `offset`."""
        columns = slice(part.x, part.x + part.width)
        start = offset % self.length
        seen = self._wall[:, columns].copy()
        seen[BELT_TOP:BELT_BOTTOM] = self._strip[:, start + columns.start : start + columns.stop]
        return seen[part.y : part.y + part.height]

    def label_at(self, offset: int) -> int | None:
        """The digit that lies wholly inside the region, None where there is none."""
        for label, box in zip(self.labels.tolist(), self.boxes, strict=True):
            left = (box.x - offset) % self.length - REGION.x
            if left >= _MARGIN and left + box.width + _MARGIN <= REGION.width:
                return int(label)
        return None

    def offsets_inside(self, place: int) -> range:
        """The belt's positions in which this digit lies wholly inside the region."""
        box = self.boxes[place]
        first = box.x - REGION.x - (REGION.width - _MARGIN - box.width)
        return range(first, box.x - REGION.x - _MARGIN + 1)


class Camera:
    """Sees a scene under conditions; frame `index` always has the same noise."""

    def __init__(self, conditions: Conditions, seed: Sequence[int]) -> None:
        self._conditions = conditions
        self._seed = tuple(seed)
        self._light = _falloff() * np.float32(conditions.light)

    def see(self, belt: Belt, offset: int, index: int, part: Box = FRAME) -> Image:
        """What the sensor gives of a part of the scene, [height, width, 3] BGR."""
        blur = self._conditions.blur
        reach = int(np.ceil(3 * blur))  # what blur carries in from around the part
        seen, inner = _with_border(part, reach)
        scene = belt.view(offset, seen)
        if blur > 0:
            scene = cv2.GaussianBlur(scene, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
        scene = scene[inner.y : inner.y + inner.height, inner.x : inner.x + inner.width]
        light = self._light[part.y : part.y + part.height, part.x : part.x + part.width]
        values = scene * light[..., np.newaxis]
        if self._conditions.noise > 0:
            rng = np.random.default_rng([*self._seed, 3, index])
            noise = rng.standard_normal(light.shape, np.float32)
            values += (noise * np.float32(self._conditions.noise))[..., np.newaxis]
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _with_border(part: Box, reach: int) -> tuple[Box, Box]:
    """The part with a border that stays in the frame, and where the part lies in that."""
    left, top = max(part.x - reach, 0), max(part.y - reach, 0)
    right = min(part.x + part.width + reach, WIDTH)
    bottom = min(part.y + part.height + reach, HEIGHT)
    inner = Box(part.x - left, part.y - top, part.width, part.height)
    return Box(left, top, right - left, bottom - top), inner


def _falloff() -> NDArray[np.float32]:
    """Less light towards the corners, and a little less on the right."""
    x = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    y = np.linspace(-1, 1, HEIGHT, dtype=np.float32)[:, np.newaxis]
    return 1.0 - 0.18 * (x * x + y * y) / 2 - 0.06 * x


def _grain(height: int, width: int, spread: tuple[float, float], rng: np.random.Generator) -> Image:
    """Texture that closes in a ring along x: smooth noise of standard deviation 1."""
    noise = rng.standard_normal((height, width), np.float32)
    edge = int(4 * spread[0]) + 1
    ring = np.concatenate([noise[:, -edge:], noise, noise[:, :edge]], axis=1)
    smooth = cv2.GaussianBlur(ring, (0, 0), spread[0], sigmaY=spread[1])[:, edge:-edge]
    return (smooth / smooth.std()).astype(np.float32)


def _slats(length: int, rng: np.random.Generator) -> Image:
    """The empty belt: slats with a dark joint and a lit edge, worn along and across."""
    height = BELT_BOTTOM - BELT_TOP
    gray = np.full((height, length), 58, np.float32)
    gray += 3.0 * _grain(height, length, (12.0, 3.0), rng)
    gray += 2.0 * _grain(height, length, (0.8, 0.8), rng)
    gray += np.repeat(rng.normal(0, 2.5, length // SLAT).astype(np.float32), SLAT)
    across = np.arange(length) % SLAT
    gray[:, across < 2] -= 22
    gray[:, across == 2] += 9
    gray[:3] -= 14
    gray[-3:] -= 14
    tint = np.array([1.08, 1.0, 0.93], np.float32)
    return np.clip(gray[..., np.newaxis] * tint, 0, 255).astype(np.uint8)


def _wall(rng: np.random.Generator) -> Image:
    """What stands around the belt: a wall, two rails and their bolts."""
    rows = np.linspace(104, 76, HEIGHT, dtype=np.float32)[:, np.newaxis]
    gray = rows + 3.0 * _grain(HEIGHT, WIDTH, (20.0, 9.0), rng)
    scene = np.clip(gray[..., np.newaxis] * np.array([0.9, 1.0, 1.04], np.float32), 0, 255)
    wall = np.ascontiguousarray(scene.astype(np.uint8))
    for top in (BELT_TOP - 14, BELT_BOTTOM):
        cv2.rectangle(wall, (0, top), (WIDTH, top + 13), (120, 124, 126), -1)
        cv2.line(wall, (0, top), (WIDTH, top), (158, 162, 164), 1)
        for x in range(24, WIDTH, 72):
            cv2.circle(wall, (x, top + 7), 3, (66, 68, 70), -1, cv2.LINE_AA)
    return wall


def _lay(strip: Image, digit: Image, centre: int, rng: np.random.Generator) -> Box:
    """Paint a digit on the belt, a little turned, sized and off its place; return its box."""
    turn, size = rng.uniform(-9, 9), rng.uniform(0.92, 1.08)
    x = centre + int(rng.integers(-3, 4))
    y = REGION.y + REGION.height // 2 - BELT_TOP + int(rng.integers(-16, 17))
    matrix = cv2.getRotationMatrix2D(((SIZE - 1) / 2, (SIZE - 1) / 2), turn, size * _ENLARGED)
    matrix[:, 2] += (_TILE - SIZE) / 2
    ink = cv2.warpAffine(digit, matrix, (_TILE, _TILE), flags=cv2.INTER_CUBIC)
    left, top = x - _TILE // 2, y - _TILE // 2
    under = strip[top : top + _TILE, left : left + _TILE]
    cover = ink[..., np.newaxis].astype(np.float32) / 255
    under[:] = np.rint(under + (np.array(_INK, np.float32) - under) * cover)
    found = cv2.boundingRect((ink > 64).astype(np.uint8))
    return Box(left + found[0], BELT_TOP + top + found[1], found[2], found[3])
