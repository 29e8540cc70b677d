"""Digits as the camera sees them: images of the region, in many places and conditions.

What the data sets and the training need, made by the belt's own renderer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from examples.digits.data import Digits
from examples.digits.scene import MIN_DIGITS, REGION, Belt, Camera, Conditions, Image

_STRETCH = 50  # digits on one belt; a longer one would only take memory


@dataclass(frozen=True)
class Range:
    """Conditions to draw from, evenly between two."""

    worst: Conditions
    best: Conditions

    def draw(self, rng: np.random.Generator) -> Conditions:
        """Conditions somewhere in the range."""
        low, high = self.worst, self.best
        return Conditions(
            light=rng.uniform(low.light, high.light),
            blur=rng.uniform(high.blur, low.blur),
            noise=rng.uniform(high.noise, low.noise),
        )


NOMINAL = Range(
    worst=Conditions(light=0.75, blur=0.6, noise=8.0),
    best=Conditions(light=1.1, blur=0.0, noise=2.0),
)


def views(digits: Digits, conditions: Range, seed: Sequence[int]) -> Iterator[Image]:
    """One gray image of the region for each digit, the digit wholly inside, in their order."""
    for start in range(0, len(digits), _STRETCH):
        stretch = digits.take(slice(start, start + _STRETCH))
        shown = len(stretch)
        if shown < MIN_DIGITS:  # a remainder too short for a ring borrows digits, not shown
            stretch = digits.take(np.resize(np.arange(start, len(digits)), MIN_DIGITS))
        rng = np.random.default_rng([*seed, start, 4])
        belt = Belt(stretch, (*seed, start))
        for place in range(shown):
            offset = int(rng.choice(belt.offsets_inside(place)))
            yield _see(belt, offset, conditions.draw(rng), (*seed, start, place))


def empty_views(count: int, conditions: Range, seed: Sequence[int]) -> Iterator[Image]:
    """Gray images of the region with no digit on the belt."""
    blank = Digits(
        images=np.zeros((MIN_DIGITS, 28, 28), np.uint8), labels=np.zeros(MIN_DIGITS, np.int64)
    )
    rng = np.random.default_rng([*seed, 5])
    belt = Belt(blank, seed)
    for index in range(count):
        yield _see(belt, int(rng.integers(belt.length)), conditions.draw(rng), (*seed, index))


def _see(belt: Belt, offset: int, conditions: Conditions, seed: Sequence[int]) -> Image:
    frame = Camera(conditions, seed).see(belt, offset, 0, REGION)
    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)  # as the pipeline does with a camera's frame
