"""What "right" means: the interface of a metric.

A metric turns a sample's outputs and label into an outcome, and all outcomes into a score from
0 to 1, higher being better. How the scores of two models on the same samples are compared
follows from `paired`:

- `binary`: an outcome is a bool, the score their mean; compared by an exact paired test;
- `mean`: an outcome is a float in [0, 1], the score their mean; by a paired bootstrap;
- `set`: the score is a function of all outcomes; by a paired bootstrap over samples.

Outcomes are made of numbers, texts, lists and tuples, so that they can be kept in a file and
compared later; tuples come back as lists. A metric of one's own needs no more than this, in
a module of the current folder, for `--metric mine:Confident`:

    class Confident:
        name, paired = "confident", "binary"
        def check(self, dataset, outputs): ...
        def outcome(self, outputs, label, reference): return bool(outputs[0].max() > 0.5)
        def score(self, outcomes): return sum(outcomes) / len(outcomes)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from converters.dataset import Dataset
from converters.sources.labels import Labels
from edgeml.errors import ModelError

Paired = Literal["binary", "mean", "set"]
Outputs = Sequence[np.ndarray]


class Metric(Protocol):
    """What "right" means for a model on labelled data.

    name: as it was asked for (`top1`, `topk:5`).
    paired: how two models are compared.
    needs_reference: whether `outcome` reads the float model's outputs on the sample.
    needs_inputs: whether it reads, in their place, the tensors that were the model's inputs
        (an autoencoder is judged by how well it gives them back).
    chance: what guessing would score; 0 where that depends on the data.
    identity: all that decides on outcomes: the name, what a labels file holds, the source
        of code that is not ours, the version of a library. What is kept in a cache is kept
        under it.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def paired(self) -> Paired: ...  # noqa: D102

    @property
    def needs_reference(self) -> bool: ...  # noqa: D102

    @property
    def needs_inputs(self) -> bool: ...  # noqa: D102

    @property
    def chance(self) -> float: ...  # noqa: D102

    @property
    def identity(self) -> str: ...  # noqa: D102

    def check(self, dataset: Dataset, outputs: Outputs) -> None:
        """Refuse labels or outputs (the float model's, of one sample) that do not fit.

        Raises:
            ModelError: they do not; the sentence says what would.
        """
        ...

    def outcome(self, outputs: Outputs, label: Any, reference: Outputs) -> Any:
        """Judge one sample.

        Raises:
            ModelError: the outputs hold NaN.
        """
        ...

    def missed(self, label: Any) -> Any:
        """The outcome of a sample in which the pipeline found nothing to infer."""
        ...

    def score(self, outcomes: Sequence[Any]) -> float:
        """The score of all outcomes, 0 to 1."""
        ...


@runtime_checkable
class Reweighted(Protocol):
    """A set metric whose score is defined for samples of unequal weight, many at once."""

    def scores(self, outcomes: Sequence[Any], weights: np.ndarray) -> np.ndarray:
        """Scores [draws] for weights [draws, samples], non-negative, of any sum."""
        ...


def labels_of(dataset: Dataset, metric: str) -> Labels:
    """The labels of data that are to be judged.

    Raises:
        ModelError: there are none.
    """
    if dataset.annotation is None:
        raise ModelError(
            f"There are no labels in {dataset.path}.",
            why=f"{metric} is measured on labelled samples.",
            fix="Save them with numpy.savez(path, x=samples, y=labels), "
            "or use --metric cosine, which needs none.",
        )
    return dataset.annotation


def wrong_labels(path: Path, metric: str, wanted: str, labels: Labels) -> ModelError:
    """The error for labels of another form than the metric takes."""
    return ModelError(
        f"The labels in {path} do not fit the metric {metric}.",
        why=f"They are {labels}; it takes {wanted}.",
        fix=_as_class_numbers(labels) if "class number" in wanted else "",
    )


def _as_class_numbers(labels: Labels) -> str:
    """How labels of another form become class numbers."""
    if labels.are_texts:
        return "Save each text's place among the model's classes, from 0."
    if labels.y.ndim == 1:
        return "Save y.astype(int)."
    if labels.y[0].size == 1:
        return "Save y.reshape(len(y)).astype(int)."
    return "Where these are one-hot rows, save y.argmax(axis=1); else choose another --metric."


def numbers(outputs: Outputs, index: int = 0) -> np.ndarray:
    """One output as floats.

    Raises:
        ModelError: there is no such output, it is not numeric or holds NaN or plus infinity
            (minus infinity is the logarithm of a probability of zero).
    """
    if index >= len(outputs):
        raise ModelError(f"The model has no output {index}.", why="The metric reads it.")
    output = np.asarray(outputs[index])
    if output.dtype.kind not in "uifb" and output.dtype.name != "bfloat16":
        raise ModelError(
            "The model's output cannot be judged.", why=f"Output {index} is {output.dtype}."
        )
    if output.dtype.kind in "uib":
        return output
    floats = output if output.dtype.itemsize >= 4 else output.astype(np.float32)  # noqa: PLR2004
    if np.isnan(floats).any() or np.isposinf(floats).any():
        raise ModelError(
            f"The model's output {index} holds NaN or infinity.",
            why="Such an answer is neither right nor wrong.",
        )
    return floats


def shape_text(array: np.ndarray) -> str:
    """A shape as people write it."""
    return " x ".join(map(str, array.shape)) or "a single number"
