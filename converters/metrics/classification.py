"""Metrics of classifiers: top-1, top-k, macro F1, and the area under the ROC curve."""

# ruff: noqa: ARG002 -- methods take what the interface hands them

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from scipy import sparse, special

from converters.dataset import Dataset
from converters.metrics.interface import (
    Outputs,
    Paired,
    labels_of,
    numbers,
    shape_text,
    wrong_labels,
)
from edgeml.errors import ModelError

_BINARY = 2
_NO_CLASS = -1
_ROUNDING = 0.02  # of shares in eight bits


class TopK(msgspec.Struct, frozen=True):
    """Whether the label is among the `k` classes with the largest scores.

    The first output is one row of scores; of equal scores the lower class comes first.
    """

    name: str = "top1"
    k: int = 1
    paired: ClassVar[Paired] = "binary"
    needs_reference: ClassVar[bool] = False
    needs_inputs: ClassVar[bool] = False
    chance: ClassVar[float] = 0.0

    @property
    def identity(self) -> str:
        """The name."""
        return self.name

    def check(self, dataset: Dataset, outputs: Outputs) -> None:
        """Class numbers, and more classes than `k`."""
        classes = _check_classes(self.name, dataset, outputs)
        if self.k >= classes:
            raise ModelError(
                f"The metric {self.name} is always 1 for this model.",
                why=f"It has {classes} classes.",
            )

    def outcome(self, outputs: Outputs, label: Any, reference: Outputs) -> bool:
        """Whether the label's score is among the best."""
        row = numbers(outputs).reshape(-1)
        own = row[label]
        ahead = int((row > own).sum()) + int((row[:label] == own).sum())
        return ahead < self.k

    def missed(self, label: Any) -> bool:
        """A wrong answer."""
        return False

    def score(self, outcomes: Sequence[Any]) -> float:
        """The share of right answers."""
        return float(np.mean(outcomes))


class MacroF1(msgspec.Struct, frozen=True):
    """F1 averaged over the classes that occur among the labels, each of the same weight."""

    name: str = "f1"
    paired: ClassVar[Paired] = "set"
    needs_reference: ClassVar[bool] = False
    needs_inputs: ClassVar[bool] = False
    chance: ClassVar[float] = 0.0

    @property
    def identity(self) -> str:
        """The name."""
        return self.name

    def check(self, dataset: Dataset, outputs: Outputs) -> None:
        """Class numbers."""
        _check_classes(self.name, dataset, outputs)

    def outcome(self, outputs: Outputs, label: Any, reference: Outputs) -> tuple[int, int]:
        """The answered class and the right one."""
        return int(np.argmax(numbers(outputs))), int(label)

    def missed(self, label: Any) -> tuple[int, int]:
        """No class was answered."""
        return _NO_CLASS, int(label)

    def score(self, outcomes: Sequence[Any]) -> float:
        """The mean F1."""
        return float(self.scores(outcomes, np.ones((1, len(outcomes))))[0])

    def scores(self, outcomes: Sequence[Any], weights: np.ndarray) -> np.ndarray:
        """The mean F1 [draws] for weights [draws, samples]."""
        answers, labels = np.array(outcomes).T
        present, own = np.unique(labels, return_inverse=True)
        said = np.searchsorted(present, answers)
        said = np.where(present[np.minimum(said, len(present) - 1)] == answers, said, len(present))
        right, rows = np.flatnonzero(answers == labels), np.arange(len(labels))
        count, by_sample = len(present) + 1, np.ascontiguousarray(weights.T)
        hits = _summed(own[right], right, count, by_sample)[:-1]
        both = _summed(own, rows, count, by_sample) + _summed(said, rows, count, by_sample)
        return np.asarray((2 * hits / np.maximum(both[:-1], np.finfo(float).tiny)).mean(axis=0))


class RocAuc(msgspec.Struct, frozen=True):
    """The area under the ROC curve.

    A row of two or more class scores: one class against the rest, averaged over the classes
    that occur among the labels (for two classes, that is the usual area, by how much the second
    class is ahead). Of more than two classes, rows that are no probabilities are made such by a
    softmax first, since logits of different samples have no common scale. A single number: an
    anomaly score, higher for the label 1. With `reconstruction` the score is the mean squared
    difference between the first output and the first input, as for an autoencoder. Equal
    scores count half.

    Source: D. Hand and R. Till, "A simple generalisation of the area under the ROC curve for
    multiple class classification problems", Machine Learning 45 (2001), for the macro average.
    """

    name: str = "auc"
    reconstruction: bool = False
    paired: ClassVar[Paired] = "set"
    needs_reference: ClassVar[bool] = False
    chance: ClassVar[float] = 0.5

    @property
    def needs_inputs(self) -> bool:
        """Where they are to be reconstructed."""
        return self.reconstruction

    @property
    def identity(self) -> str:
        """The name."""
        return self.name

    def check(self, dataset: Dataset, outputs: Outputs) -> None:
        """Class numbers, at least two of them in use."""
        labels = labels_of(dataset, self.name)
        if not labels.are_class_numbers:
            raise wrong_labels(dataset.path, self.name, "one class number a sample", labels)
        if self.reconstruction or numbers(outputs).size == 1:
            wrong = np.flatnonzero((labels.y < 0) | (labels.y >= _BINARY))
            if wrong.size:
                raise ModelError(
                    f"The label of sample {wrong[0]} in {dataset.path} is out of range.",
                    why=f"It is {labels.y[wrong[0]]}; an anomaly is 1, all else 0.",
                )
        else:
            _check_classes(self.name, dataset, outputs)
        if len(np.unique(labels.y)) < _BINARY:
            raise ModelError(
                f"The labels in {dataset.path} do not fit the metric {self.name}.",
                why=f"They are all {labels.y[0]}; it compares samples of different classes.",
            )

    def outcome(self, outputs: Outputs, label: Any, reference: Outputs) -> tuple[list[float], int]:
        """The scores [classes], or the anomaly score [1], and the label."""
        output = numbers(outputs)
        if not self.reconstruction:
            return output.reshape(-1).tolist(), int(label)
        wanted = np.asarray(reference[0], np.float64)
        if wanted.size != output.size:
            raise ModelError(
                f"The metric {self.name} does not fit the model.",
                why=f"Its first output is {shape_text(output)}, its first input "
                f"{shape_text(wanted)}; an autoencoder's are of one size.",
            )
        error = np.mean((output.reshape(-1).astype(np.float64) - wanted.reshape(-1)) ** 2)
        return [float(error)], int(label)

    def missed(self, label: Any) -> tuple[list[float], int]:
        """No scores, which count as the worst."""
        return [], int(label)

    def score(self, outcomes: Sequence[Any]) -> float:
        """The (mean) area."""
        return float(self.scores(outcomes, np.ones((1, len(outcomes))))[0])

    def scores(self, outcomes: Sequence[Any], weights: np.ndarray) -> np.ndarray:
        """The (mean) area [draws] for weights [draws, samples]."""
        labels = np.array([label for _, label in outcomes])
        classes = max(len(row) for row, _ in outcomes)
        if not classes:
            return np.zeros(len(weights))
        inferred = np.array([bool(row) for row, _ in outcomes])
        scores = np.array([row or _worst(label, classes) for row, label in outcomes], np.float64)
        by_sample = np.ascontiguousarray(weights.T)
        if classes <= _BINARY:
            ahead = scores[:, 1] - scores[:, 0] if classes == _BINARY else scores[:, 0]
            return _area(ahead, labels == 1, by_sample)
        scores[inferred] = _comparable(scores[inferred])
        present = np.unique(labels)
        total = np.zeros(len(weights))
        for kind in present:
            total += _area(scores[:, kind], labels == kind, by_sample)
        return np.asarray(total / len(present))


def _comparable(scores: np.ndarray) -> np.ndarray:
    """Class scores [n, classes] that may be compared between samples.

    Shares (of one whole, or each of its own) stay as they are, also where quantization moved
    them a little beyond 0 and 1; logits and log-probabilities go through a softmax.
    """
    if scores.min() >= -_ROUNDING and scores.max() <= 1 + _ROUNDING:
        return scores
    return np.asarray(special.softmax(scores, axis=1))


def _worst(label: int, classes: int) -> list[float]:
    """The scores of a sample that was not inferred: its class last, all others first."""
    if classes == 1:
        return [np.inf if label == 0 else -np.inf]
    return [-np.inf if kind == label else np.inf for kind in range(classes)]


def _area(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """P(a positive scores higher than a negative) + half of P(equal), [draws].

    Negatives are summed in groups, below, at and above each score that a positive has:
    group 2 i lies just below the i-th such score, group 2 i + 1 at it.
    """
    levels, level = np.unique(scores[positive], return_inverse=True)
    below = np.searchsorted(levels, scores[~positive], side="left")
    at = np.searchsorted(levels, scores[~positive], side="right") > below
    up = _summed(level, np.flatnonzero(positive), len(levels), weights)
    down = _summed(2 * below + at, np.flatnonzero(~positive), 2 * len(levels) + 1, weights)
    lower = np.cumsum(down, axis=0)[:-1:2] + down[1::2] / 2
    pairs = up.sum(axis=0) * down.sum(axis=0)
    return np.asarray((up * lower).sum(axis=0) / np.maximum(pairs, np.finfo(float).tiny))


def _summed(groups: np.ndarray, rows: np.ndarray, count: int, weights: np.ndarray) -> np.ndarray:
    """The weights [samples, draws] of `rows`, summed by group, [count, draws]."""
    shape = (count, len(weights))
    return np.asarray(sparse.csr_array((np.ones(len(rows)), (groups, rows)), shape=shape) @ weights)


def _check_classes(name: str, dataset: Dataset, outputs: Outputs) -> int:
    """The number of classes; refuse what is no row of scores and labels that are no class."""
    labels = labels_of(dataset, name)
    if not labels.are_class_numbers:
        raise wrong_labels(dataset.path, name, "one class number a sample", labels)
    row = numbers(outputs)
    if row.ndim == 0 or row.size != row.shape[-1] or row.size < _BINARY:
        raise ModelError(
            "The model is no classifier.",
            why=f"Its first output has the shape {shape_text(row)} for one sample; {name} needs "
            "one row of class scores.",
            fix=_scores_elsewhere(outputs)
            or "Choose a metric that fits the outputs: map, exact, auc, cosine or one of your "
            "own as module:attribute.",
        )
    wrong = np.flatnonzero((labels.y < 0) | (labels.y >= row.size))
    if wrong.size:
        raise ModelError(
            f"The label of sample {wrong[0]} in {dataset.path} is out of range.",
            why=f"It is {labels.y[wrong[0]]}; the model has the classes 0 to {row.size - 1}.",
            fix="Number the classes from 0 in the order of the model's outputs.",
        )
    return int(row.size)


def _scores_elsewhere(outputs: Outputs) -> str:
    """What to do where another output than the first is a row of scores, as scikit-learn has it."""
    for index, output in enumerate(outputs):
        shape = np.shape(output)
        if shape and np.size(output) == shape[-1] >= _BINARY:
            return (
                f"Output {index}, counted from 0, is a row of {shape[-1]} numbers: where these are "
                "the scores, make it the first, for instance with onnx.utils.extract_model."
            )
    return ""
