"""How a sample becomes tensors and outputs become an answer: by the pipeline, or directly.

With a pipeline, samples are region images and the pipeline prepares and reads them, with the
same code that devices run. Without one, samples are tensors in the model's input layout, and
the answer is the class with the largest score in the first output.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from converters.dataset import Dataset
from converters.model import FloatModel, the_input
from edgeml.errors import ModelError
from hardware.pipeline import Pipeline, PipelineRunner, parse
from hardware.runtimes.interface import TensorSpec

NOTHING = -1  # the answer where the pipeline found nothing to infer


class Task(Protocol):
    """A sample in, tensors for the model; outputs in, a class number."""

    def prepare(self, sample: np.ndarray) -> Sequence[np.ndarray] | None:
        """Tensors with batch axis 1, valid until the next call; None: nothing to infer."""
        ...

    def answer(self, outputs: Sequence[np.ndarray]) -> int:
        """The class that the outputs speak for."""
        ...

    def check(self, dataset: Dataset) -> None:
        """Refuse data that this task cannot use."""
        ...


class DirectTask:
    """Tensors in the model's input layout, scores in its first output."""

    def __init__(self, model: FloatModel) -> None:
        self._spec = the_input(model)
        self._dtype = np.dtype(self._spec.dtype)

    def prepare(self, sample: np.ndarray) -> Sequence[np.ndarray] | None:
        """The sample in the model's type, with a batch axis."""
        return [np.ascontiguousarray(sample, self._dtype)[None]]

    def answer(self, outputs: Sequence[np.ndarray]) -> int:
        """The index of the largest score."""
        return int(np.argmax(outputs[0]))

    def check(self, dataset: Dataset) -> None:
        """Refuse samples whose shape or type is not that of the model's input."""
        wanted = self._spec.shape[1:]
        fits = len(wanted) == len(dataset.shape) and all(
            isinstance(w, str) or w == has for w, has in zip(wanted, dataset.shape, strict=True)
        )
        if not fits:
            raise ModelError(
                f"The samples in {dataset.path} do not fit the model.",
                why=f"They have the shape {_text(dataset.shape)}; the input {self._spec.name} "
                f"takes {_text(wanted)} after its batch axis.",
                fix="Save them in the model's input layout, or give a pipeline that makes it.",
            )
        if not _keeps_values(dataset.dtype, self._dtype):
            raise ModelError(
                f"The samples in {dataset.path} do not fit the model.",
                why=f"They are {dataset.dtype}, which {self._dtype} cannot hold; the input "
                f"{self._spec.name} takes {self._dtype}.",
                fix=f"Save them as {self._dtype}.",
            )


class PipelineTask:
    """Region images through the release's pipeline."""

    def __init__(self, pipeline: Pipeline, model: FloatModel) -> None:
        self._runner: PipelineRunner = pipeline.runner(model.inputs)

    def prepare(self, sample: np.ndarray) -> Sequence[np.ndarray] | None:
        """What the pipeline makes of a region image."""
        return self._runner.prepare(sample)

    def answer(self, outputs: Sequence[np.ndarray]) -> int:
        """The index of the class that the pipeline reads."""
        return self._runner.read(outputs).index

    def check(self, dataset: Dataset) -> None:
        """Refuse samples that are no images."""
        is_image = len(dataset.shape) == 2 or dataset.shape[2:] in {(1,), (3,)}  # noqa: PLR2004
        if dataset.dtype != np.uint8 or not is_image:
            raise ModelError(
                f"The samples in {dataset.path} are no region images.",
                why=f"They are {dataset.dtype}, {_text(dataset.shape)}; a pipeline takes uint8, "
                "height x width or height x width x 3.",
                fix="Save what the pipeline's region shows, or convert without --pipeline.",
            )


def load_pipeline(path: Path) -> tuple[Pipeline, bytes]:
    """Read and parse a pipeline; returns it with its bytes, which go into the release.

    Raises:
        ModelError: there is no such file, or it is no pipeline.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"No pipeline {path}.", why=f"{error.strerror}.") from None
    return parse(data), data


def check_labels(dataset: Dataset, classes: int) -> np.ndarray:
    """Return the labels of evaluation data, all of them in 0 .. classes - 1.

    Raises:
        ModelError: there are none, or one is out of range.
    """
    if dataset.labels is None:
        raise ModelError(
            f"There are no labels in {dataset.path}.",
            why="Accuracy is measured on labelled samples.",
            fix="Save them with numpy.savez(path, x=samples, y=labels).",
        )
    wrong = np.flatnonzero((dataset.labels < 0) | (dataset.labels >= classes))
    if wrong.size:
        raise ModelError(
            f"The label of sample {wrong[0]} in {dataset.path} is out of range.",
            why=f"It is {dataset.labels[wrong[0]]}; the model has the classes 0 to {classes - 1}.",
        )
    return dataset.labels


def class_count(outputs: Sequence[np.ndarray], specs: Sequence[TensorSpec], path: Path) -> int:
    """How many classes the model's first output scores.

    Raises:
        ModelError: the output is no row of scores.
    """
    scores = outputs[0]
    if scores.size != scores.shape[-1] or scores.size < 2:  # noqa: PLR2004
        raise ModelError(
            f"The model {path} is no classifier.",
            why=f"Its first output {specs[0].name} has the shape {_text(scores.shape)} for one "
            "sample; top1 needs one row of class scores.",
        )
    return int(scores.size)


def _keeps_values(source: np.dtype, target: np.dtype) -> bool:
    return np.can_cast(source, target, "safe") or (source.kind == target.kind == "f")


def _text(shape: Sequence[int | str]) -> str:
    return " x ".join(str(size) for size in shape) or "of a single number"
