"""Executes a pipeline: crop, prepare, read; the same code at the converter and on a device.

Everything is allocated once, for the first frame size seen; a call in the steady state makes
only the small views that OpenCV needs. No float64 anywhere.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ModelError
from hardware.pipeline import steps
from hardware.pipeline.definition import Pipeline, SiteParameters, Softmax, Threshold, TopK
from hardware.pipeline.geometry import IDENTITY, Mapping, cut, window
from hardware.pipeline.postprocessors import Seen, Settings
from hardware.pipeline.results import Result
from hardware.runtimes.interface import TensorSpec

Image = NDArray[np.uint8]

__all__ = ["Image", "PipelineRunner", "cut"]


class PipelineRunner:
    """One pipeline for one model; not thread-safe, buffers are reused between calls.

    `read` belongs to the `prepare` before it, and `prepare` to the `crop` before it, if any.
    """

    def __init__(
        self, pipeline: Pipeline, inputs: Sequence[TensorSpec], site: SiteParameters
    ) -> None:
        if len(inputs) != 1:
            raise ModelError(
                "The pipeline does not fit the model.",
                why=f"It makes one input, the model wants {len(inputs)}.",
            )
        self._input = inputs[0]
        self._kind = pipeline.input
        self._region = site.region or pipeline.region
        self._steps = steps.build(pipeline.pre)
        self._moving = [step for step in self._steps if hasattr(step, "mapping")]
        self._read = pipeline.processor.reader(_settings(pipeline, site))
        self._origin = (0, 0)
        self._bounds = (0, 0, 0, 0)
        self._size = (0, 0)
        self._tensors: list[NDArray[Any]] = []
        self._fits: tuple[Any, ...] = ()
        self._batch: tuple[NDArray[Any], NDArray[Any]] | None = None

    def crop(self, frame: Image) -> Image:
        """The region of a camera's frame (HxW or HxWx3 uint8), as a view."""
        if self._region is None:
            return frame
        left, top, right, bottom = window(frame, self._region)
        self._origin = (left, top)
        return frame[top:bottom, left:right]

    def prepare(self, image: NDArray[Any]) -> list[NDArray[Any]] | None:
        """Make the model's input from an image of the region, from audio or from a tensor.

        Returns:
            The tensors, valid until the next call; None where nothing was located.

        Raises:
            ModelError: the image is none, or the tensor does not fit the model.
        """
        current: NDArray[Any] = self._checked(image)
        try:
            for step in self._steps:
                made = step(current)
                if made is None:
                    return None
                current = made
        except (cv2.error, ValueError, TypeError) as error:
            raise ModelError(
                "A pipeline step failed.",
                why=f"{type(step).__name__} on {current.dtype.name}{list(current.shape)}: {error}",
            ) from error
        if self._kind != "image" and current.ndim == len(self._input.shape) - 1:
            current = self._batched(current)
        made_as = (current.shape, current.dtype)
        if made_as != self._fits:
            if not self._input.accepts(current):
                raise ModelError(
                    "The pipeline does not fit the model.",
                    why=f"It makes {current.dtype.name}{list(current.shape)}, "
                    f"the model wants {self._input}.",
                    fix="Check the steps resize, colour and layout."
                    if self._kind == "image"
                    else "Check what the source gives.",
                )
            self._fits = made_as
            self._size = _picture_size(current.shape)
        self._tensors = [current]
        return self._tensors

    def _batched(self, current: NDArray[Any]) -> NDArray[Any]:
        """With a batch axis; the same array for the same, which a session need bind only once."""
        if self._batch is None or self._batch[0] is not current:
            self._batch = current, current[np.newaxis]
        return self._batch[1]

    def read(self, outputs: Sequence[NDArray[Any]], source: str = "", at: float = 0.0) -> Result:
        """Read the model's outputs as the pipeline's post-processor does.

        Args:
            outputs: of the model, for what was prepared last.
            source: what the frame came from: what is smoothed over time is kept for each.
            at: the monotonic time of the frame's capture.

        Raises:
            ModelError: the outputs are not those that the pipeline reads, or are no numbers.
        """
        seen = Seen(
            inputs=self._tensors,
            source=source,
            at=at,
            size=self._size,
            to_frame=self._mapping(),
            bounds=self._bounds,
        )
        # What overflows becomes infinity, which the reader refuses by name.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._read(outputs, seen)

    def _mapping(self) -> Mapping:
        """From the model's picture to the frame."""
        found = IDENTITY
        for step in reversed(self._moving):
            found = found.then(step.mapping)
        left, top = self._bounds[:2]
        return found.then(Mapping(x0=left, y0=top)) if left or top else found

    def _checked(self, image: NDArray[Any]) -> NDArray[Any]:
        if self._kind == "image":
            checked = _checked_image(image)
            left, top = self._origin
            self._origin = (0, 0)
            self._bounds = (left, top, left + image.shape[1], top + image.shape[0])
            return checked
        if image.size == 0 or not np.issubdtype(image.dtype, np.number):
            raise ModelError(
                f"A frame is no {self._kind}.", why=f"It is {image.dtype.name}{list(image.shape)}."
            )
        return image


def _settings(pipeline: Pipeline, site: SiteParameters) -> Settings:
    own = next((s.value for s in pipeline.post if isinstance(s, Threshold)), None)
    chosen = own if site.threshold is None else site.threshold
    return Settings(
        labels=pipeline.labels,
        threshold=pipeline.processor.threshold if chosen is None else chosen,
        softmax=any(isinstance(step, Softmax) for step in pipeline.post),
        k=next((step.k for step in pipeline.post if isinstance(step, TopK)), 1),
    )


def _picture_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of a tensor that holds a picture, in any layout; (0, 0) of another."""
    match shape:
        case (_, 1 | 3, height, width) | (_, height, width, 1 | 3) | (_, height, width):
            return width, height
    return 0, 0


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
