"""Executes a pipeline: crop, prepare, read; the same code at the converter and on a device.

Everything is allocated once, for the first image size seen; a call in the steady state makes
only the small views that OpenCV needs. No float64 anywhere.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ModelError
from hardware.pipeline import steps
from hardware.pipeline.definition import Pipeline, Region, SiteParameters, Softmax, Threshold, TopK
from hardware.runtimes.interface import TensorSpec

Image = NDArray[np.uint8]


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """The best label, its score and the `k` best; `confident` at or above the threshold."""

    index: int
    label: str
    confidence: float
    top: tuple[tuple[str, float], ...]
    confident: bool


class PipelineRunner:
    """One pipeline for one model; not thread-safe, buffers are reused between calls."""

    def __init__(
        self, pipeline: Pipeline, inputs: Sequence[TensorSpec], site: SiteParameters
    ) -> None:
        if len(inputs) != 1:
            raise ModelError(
                "The pipeline does not fit the model.",
                why=f"It makes one input, the model wants {len(inputs)}.",
            )
        self._input = inputs[0]
        self._labels = pipeline.labels
        self._region = site.region or pipeline.region
        self._steps = steps.build(pipeline.pre)
        self._softmax = any(isinstance(step, Softmax) for step in pipeline.post)
        self._k = next((s.k for s in pipeline.post if isinstance(s, TopK)), 1)
        value = next((s.value for s in pipeline.post if isinstance(s, Threshold)), 0.0)
        self._threshold = value if site.threshold is None else site.threshold
        self._fits: tuple[Any, ...] = ()

    def crop(self, frame: Image) -> Image:
        """The region of a camera's frame (HxW or HxWx3 uint8), as a view."""
        return frame if self._region is None else cut(frame, self._region)

    def prepare(self, image: Image) -> list[NDArray[Any]] | None:
        """Make the model's input from an image of the region.

        Returns:
            The tensors, valid until the next call; None where nothing was located.

        Raises:
            ModelError: the image is none, or the tensor does not fit the model.
        """
        current: NDArray[Any] = _checked_image(image)
        try:
            for step in self._steps:
                made = step(current)
                if made is None:
                    return None
                current = made
        except (cv2.error, ValueError) as error:
            raise ModelError(
                "A pipeline step failed.",
                why=f"{type(step).__name__} on {current.dtype.name}{list(current.shape)}: {error}",
            ) from error
        made_as = (current.shape, current.dtype)
        if made_as != self._fits:
            if not self._input.accepts(current):
                raise ModelError(
                    "The pipeline does not fit the model.",
                    why=f"It makes {current.dtype.name}{list(current.shape)}, "
                    f"the model wants {self._input}.",
                    fix="Check the steps resize, colour and layout.",
                )
            self._fits = made_as
        return [current]

    def read(self, outputs: Sequence[NDArray[Any]]) -> Classification:
        """Read the model's first output as a classification.

        Raises:
            ModelError: the model answers another number of classes than there are labels, or
                something that is no number.
        """
        if not outputs or not np.issubdtype(np.asarray(outputs[0]).dtype, np.number):
            raise ModelError(
                "The pipeline does not fit the model.",
                why="The model's first output has no scores.",
            )
        scores = np.asarray(outputs[0], dtype=np.float32).reshape(-1)
        if scores.size != len(self._labels):
            raise ModelError(
                "The pipeline does not fit the model.",
                why=f"It has {len(self._labels)} labels, the model answers {scores.size} scores.",
            )
        if not np.isfinite(scores).all():
            raise ModelError("The model's answer is no number.", why="It has NaN or infinity.")
        # Ordered before the softmax, which rounds near logits to equal probabilities.
        best = np.argsort(-scores, kind="stable")[: self._k]
        if self._softmax:
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
        top = tuple((self._labels[i], float(scores[i])) for i in best)
        return Classification(
            index=int(best[0]),
            label=top[0][0],
            confidence=top[0][1],
            top=top,
            confident=top[0][1] >= self._threshold,
        )


def cut(frame: Image, region: Region) -> Image:
    """The part of a frame that a region names: at least one pixel, a view."""
    height, width = frame.shape[:2]
    left = min(round(region.x * width), width - 1)
    top = min(round(region.y * height), height - 1)
    right = max(left + 1, min(width, left + round(region.width * width)))
    bottom = max(top + 1, min(height, top + round(region.height * height)))
    return frame[top:bottom, left:right]


def _checked_image(image: Image) -> Image:
    colour_axes = 3
    if image.dtype != np.uint8 or image.size == 0 or image.ndim not in {2, colour_axes}:
        raise ModelError(
            "An image cannot be used.",
            why=f"It is {image.dtype.name}{list(image.shape)}; "
            "wanted are uint8 [H, W] or [H, W, 3].",
        )
    if image.ndim == colour_axes and image.shape[2] not in {1, colour_axes}:
        raise ModelError("An image cannot be used.", why=f"It has {image.shape[2]} channels.")
    return image
