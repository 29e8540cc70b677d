"""How a sample becomes tensors for the model: by the pipeline, or directly.

With a pipeline, samples are region images, and the pipeline prepares them with the same code
that devices run. Without one, samples are tensors in the model's input layout: an array for
a model with one input, a mapping of arrays by input name for a model with several. What the
outputs are worth is a metric's to say (`converters.metrics`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from converters.dataset import VARIES, Dataset, Sample, SampleArray
from converters.model import FloatModel
from edgeml.errors import ModelError
from hardware.pipeline import Pipeline, PipelineRunner, parse, with_labels
from hardware.pipeline.definition import Scale
from hardware.runtimes.interface import TensorSpec

Outputs = Sequence[np.ndarray]


class Task(Protocol):
    """A sample in, tensors for the model."""

    labels: tuple[str, ...]
    """What the model's classes mean; empty where nothing says it."""

    def prepare(self, sample: Sample) -> Sequence[np.ndarray] | None:
        """Tensors in the order of the model's inputs, one sample each, valid until the next call.

        None where there is nothing to infer.

        Raises:
            ModelError: the sample does not fit.
        """
        ...

    def arrays(self, sample: Sample) -> tuple[np.ndarray, ...]:
        """What a golden set keeps of a sample: an array, or one for each of several inputs."""
        ...

    def check(self, dataset: Dataset) -> None:
        """Refuse data that this task cannot use.

        Raises:
            ModelError: they do not fit; the sentence says what would.
        """
        ...

    def check_outputs(self, outputs: Outputs) -> None:
        """Refuse outputs that devices could not read.

        Raises:
            ModelError: the pipeline's labels do not fit them.
        """
        ...


class DirectTask:
    """Tensors in the model's input layout, of any rank.

    A sample has the input's shape without its batch axis, which is added; or the whole shape,
    where an input has no batch axis or it is not the first.
    """

    labels: tuple[str, ...] = ()

    def __init__(self, model: FloatModel) -> None:
        self._model = model
        self._inputs = model.inputs

    def prepare(self, sample: Sample) -> Sequence[np.ndarray] | None:
        """The sample in the inputs' types, with a batch axis; a tuple is in their order."""
        return [_tensor(*pair) for pair in zip(self.arrays(sample), self._inputs, strict=True)]

    def arrays(self, sample: Sample) -> tuple[np.ndarray, ...]:
        """The arrays in the order of the model's inputs."""
        if isinstance(sample, Mapping):
            return tuple(sample[spec.name] for spec in self._inputs)
        return sample if isinstance(sample, tuple) else (sample,)

    def check(self, dataset: Dataset) -> None:
        """Refuse samples whose shapes or types are not those of the model's inputs."""
        arrays = {array.name: array for array in dataset.arrays}
        if dataset.is_mapping or len(self._inputs) != 1:
            self._check_names(dataset, arrays)
        elif dataset.arrays:
            arrays = {self._inputs[0].name: dataset.arrays[0]}
        for spec in self._inputs:
            _check_shape(dataset.path, arrays[spec.name], spec)
            _check_type(dataset.path, arrays[spec.name].dtype, spec)

    def check_outputs(self, outputs: Outputs) -> None:
        """Nothing reads them on a device but the application."""

    def _check_names(self, dataset: Dataset, arrays: Mapping[str, SampleArray]) -> None:
        wanted = [spec.name for spec in self._inputs]
        if dataset.is_mapping and set(arrays) == set(wanted):
            return
        raise ModelError(
            f"The samples in {dataset.path} do not fit the model.",
            why=f"It has the inputs {', '.join(wanted) or 'none'}; the samples hold "
            f"{', '.join(arrays)}.",
            fix=f"Save one array an input: numpy.savez(path, {', '.join(f'{n}=…' for n in wanted)})"
            ", and labels as y; or yield pairs of a dict of these and a label.",
        )


class PipelineTask:
    """Region images through the release's pipeline."""

    def __init__(self, pipeline: Pipeline, model: FloatModel) -> None:
        self._runner: PipelineRunner = pipeline.runner(model.inputs)
        self._kind = pipeline.input
        self.labels: tuple[str, ...] = tuple(pipeline.labels)
        scales = [step for step in pipeline.pre if isinstance(step, Scale)]
        self.normalisation = (scales[-1].mean, scales[-1].std) if scales else ((0.0,), (1.0,))

    def prepare(self, sample: Sample) -> Sequence[np.ndarray] | None:
        """What the pipeline makes of a region image."""
        return self._runner.prepare(sample)

    def arrays(self, sample: Sample) -> tuple[np.ndarray, ...]:
        """The region image."""
        return (sample,)

    def check(self, dataset: Dataset) -> None:
        """Refuse samples that are no images, where the pipeline takes images."""
        if self._kind != "image":
            return
        is_image = len(dataset.shape) == 2 or dataset.shape[2:] in {(1,), (3,)}  # noqa: PLR2004
        if dataset.dtype != np.uint8 or dataset.is_mapping or not is_image:
            raise ModelError(
                f"The samples in {dataset.path} are no region images.",
                why=f"They are {dataset.dtype}, {_text(dataset.shape)}; a pipeline takes uint8, "
                "height x width or height x width x 3.",
                fix="Save what the pipeline's region shows, or convert without --pipeline.",
            )

    def check_outputs(self, outputs: Outputs) -> None:
        """Read them as a device does."""
        self._runner.read(outputs)


def load_pipeline(path: Path) -> tuple[Pipeline, bytes]:
    """Read and parse a pipeline; returns it with its bytes, which go into the release.

    The labels of a `labels_file` are put into them.

    Raises:
        ModelError: there is no such file, or it is no pipeline.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"No pipeline {path}.", why=f"{error.strerror}.") from None
    data = with_labels(data, path.parent)
    return parse(data), data


def _tensor(sample: Any, spec: TensorSpec) -> np.ndarray:
    """One sample in an input's type and rank.

    Raises:
        ModelError: a value is beyond what the type can hold.
    """
    dtype, array = np.dtype(spec.dtype), np.asarray(sample)
    if array.dtype.kind in "ui" and dtype.kind in "ui" and not _is_wider(array.dtype, dtype):
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise ModelError(
                f"A sample does not fit the input {spec.name}.",
                why=f"It holds values from {array.min()} to {array.max()}; {dtype} holds "
                f"{limits.min} to {limits.max}.",
            )
    with np.errstate(over="ignore"):
        tensor = spec.tensor(array)
    if dtype.kind == "f" and dtype.itemsize < array.dtype.itemsize and np.isinf(tensor).any():
        raise ModelError(
            f"A sample does not fit the input {spec.name}.",
            why=f"It holds values beyond {np.finfo(dtype).max:g}, the largest {dtype}.",
        )
    return tensor


def _check_shape(path: Path, array: SampleArray, spec: TensorSpec) -> None:
    if _fits(array.shape, spec.shape):
        if spec.shape and isinstance(spec.shape[0], str) and array.shape[0] != 1:
            raise ModelError(
                f"The samples in {path} are batches.",
                why=f"They have the shape {_text(array.shape)}, and the first axis of the input "
                f"{spec.name} counts samples; devices infer one at a time.",
                fix="Give single samples. An axis that counts something else is fixed with "
                f"--dim {spec.name}:0=VALUE.",
            )
        return
    inner = spec.shape[1:]
    batch = spec.shape[0] if spec.shape else 1
    if spec.shape and _fits(array.shape, inner):
        if isinstance(batch, str) or batch == 1:
            return
        raise ModelError(
            f"The batch axis of input {spec.name} is fixed to {batch}.",
            why="Devices infer one sample at a time.",
            fix="Leave out a --dim that fixes it; else export the model with batch size 1 or a "
            "free batch axis.",
        )
    raise ModelError(
        f"The samples in {path} do not fit the model.",
        why=f"They have the shape {_text(array.shape)}; the input {spec.name} takes "
        f"{_text(inner)}{' after its batch axis' if spec.shape else ''}.",
        fix="Save them in the model's input layout, or give a pipeline that makes it.",
    )


def _check_type(path: Path, dtype: np.dtype, spec: TensorSpec) -> None:
    wanted = np.dtype(spec.dtype)
    if not _is_wider(dtype, wanted) and dtype.kind + wanted.kind not in _CHECKED_ONE_BY_ONE:
        raise ModelError(
            f"The samples in {path} do not fit the model.",
            why=f"They are {dtype}, which {wanted} cannot hold; the input {spec.name} takes "
            f"{wanted}.",
            fix=f"Save them as {wanted}.",
        )


_CHECKED_ONE_BY_ONE = {"ff", "ii", "iu", "ui", "uu"}  # kinds whose values mostly fit


def _is_wider(source: np.dtype, target: np.dtype) -> bool:
    return np.can_cast(source, target, "safe")


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    return len(wanted) == len(shape) and all(
        isinstance(want, str) or want == has for want, has in zip(wanted, shape, strict=True)
    )


def _text(shape: Sequence[int | str]) -> str:
    sizes = ("varying" if size == VARIES else str(size) for size in shape)
    return " x ".join(sizes) or "of a single number"
