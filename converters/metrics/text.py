"""Metrics of text recognisers: exact match and character accuracy, of decoded outputs.

The first output is either scores, [1, T, C] or [T, 1, C] or [1, C, T], decoded greedily as
connectionist temporal classification (CTC) has it: the best class of each step, repeats
merged, blanks dropped; or class numbers already, integers [1, T], of which blanks are dropped.

Source: A. Graves et al., "Connectionist temporal classification", ICML 2006, section 3.2.
"""

# ruff: noqa: ARG002 -- methods take what the interface hands them

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np

from converters.dataset import Dataset
from converters.metrics.interface import (
    Outputs,
    Paired,
    labels_of,
    numbers,
    shape_text,
    wrong_labels,
)
from edgeml.errors import ModelError, UserError

_STEPS_AND_CLASSES = 2


class Alphabet(msgspec.Struct, frozen=True):
    """What each class means: the text of class i, and which class is blank.

    A file has one text a line. With as many lines as the model has classes, line i is class
    i; with one line fewer, the blank is the class 0 (or the last one) and not in the file.
    """

    texts: tuple[str, ...]
    blank_last: bool = False

    def of(self, classes: int) -> tuple[tuple[str, ...], int]:
        """The text of each of `classes` classes, and the blank's number.

        Raises:
            ModelError: the number of texts does not fit.
        """
        blank = classes - 1 if self.blank_last else 0
        if len(self.texts) == classes:
            return self.texts, blank
        if len(self.texts) == classes - 1:
            return (*self.texts, "") if self.blank_last else ("", *self.texts), blank
        raise ModelError(
            "The labels do not fit the model.",
            why=f"There are {len(self.texts)} of them; the model has {classes} classes, one of "
            "them blank.",
            fix="Give the file that the model was trained with; a class that is a space needs "
            "its line too.",
        )


def read_alphabet(path: Path, *, blank_last: bool) -> Alphabet:
    """Read a file with one text a line.

    Raises:
        UserError: the file cannot be read or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"No labels file {path}.", why=f"{error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"The labels in {path} cannot be read.", why="It is no UTF-8.") from None
    lines = text.replace("\r\n", "\n").split("\n")
    return Alphabet(tuple(lines[:-1] if text.endswith("\n") else lines), blank_last)


def decode(outputs: Outputs, alphabet: Alphabet) -> str:
    """The text that the first output spells, without outer spaces.

    Raises:
        ModelError: the output has no steps and classes, or holds NaN.
    """
    output = numbers(outputs)
    if output.dtype.kind in "ui":
        return _spelt(output.reshape(-1), alphabet)
    scores = _steps_by_classes(output, len(alphabet.texts))
    texts, blank = alphabet.of(scores.shape[1])
    best = scores.argmax(axis=1)
    kept = np.r_[True, best[1:] != best[:-1]] & (best != blank)
    return "".join(texts[kind] for kind in best[kept]).strip()


def _spelt(classes: np.ndarray, alphabet: Alphabet) -> str:
    texts = alphabet.texts
    outside = classes[(classes < 0) | (classes >= len(texts))]
    if outside.size:
        raise ModelError(
            "The labels do not fit the model.",
            why=f"It answers the class {outside[0]}; there are {len(texts)} labels.",
        )
    return "".join(texts[kind] for kind in classes).strip()


def _steps_by_classes(output: np.ndarray, texts: int) -> np.ndarray:
    rows = output.reshape([size for size in output.shape if size != 1] or [1])
    if rows.ndim != _STEPS_AND_CLASSES:
        raise ModelError(
            "The model is no text recogniser.",
            why=f"Its first output has the shape {shape_text(output)} for one sample; wanted are "
            "scores, 1 x steps x classes.",
        )
    fits = {texts, texts + 1}
    return rows.T if rows.shape[1] not in fits and rows.shape[0] in fits else rows


class _TextMetric(msgspec.Struct, frozen=True):
    name: str
    alphabet: Alphabet
    needs_reference: ClassVar[bool] = False
    needs_inputs: ClassVar[bool] = False
    chance: ClassVar[float] = 0.0

    @property
    def identity(self) -> str:
        """The name and what the labels are."""
        return f"{self.name} {hashlib.sha256(repr(self.alphabet).encode()).hexdigest()}"

    def check(self, dataset: Dataset, outputs: Outputs) -> None:
        """Labels are texts, and outputs can be decoded."""
        labels = labels_of(dataset, self.name)
        if not labels.are_texts:
            raise wrong_labels(dataset.path, self.name, "one text a sample", labels)
        decode(outputs, self.alphabet)


class ExactMatch(_TextMetric, frozen=True):
    """Whether the whole text is right; outer spaces do not count."""

    paired: ClassVar[Paired] = "binary"

    def outcome(self, outputs: Outputs, label: Any, reference: Outputs) -> bool:
        """Whether the decoded text is the label."""
        return bool(decode(outputs, self.alphabet) == str(label).strip())

    def missed(self, label: Any) -> bool:
        """A wrong answer."""
        return False

    def score(self, outcomes: Sequence[Any]) -> float:
        """The share of right texts."""
        return float(np.mean(outcomes))


class CharacterAccuracy(_TextMetric, frozen=True):
    """1 - (edit distances of all texts) / (characters of all labels), not below 0."""

    paired: ClassVar[Paired] = "set"

    def outcome(self, outputs: Outputs, label: Any, reference: Outputs) -> tuple[int, int]:
        """The edit distance and the label's length."""
        wanted = str(label).strip()
        return edit_distance(decode(outputs, self.alphabet), wanted), len(wanted)

    def missed(self, label: Any) -> tuple[int, int]:
        """Every character is missing."""
        wanted = str(label).strip()
        return len(wanted), len(wanted)

    def score(self, outcomes: Sequence[Any]) -> float:
        """The share of right characters."""
        return float(self.scores(outcomes, np.ones((1, len(outcomes))))[0])

    def scores(self, outcomes: Sequence[Any], weights: np.ndarray) -> np.ndarray:
        """The share of right characters [draws] for weights [draws, samples]."""
        distances, lengths = np.array(outcomes, np.float64).T
        total = np.maximum(weights @ lengths, np.finfo(float).tiny)
        return np.asarray(np.clip(1 - weights @ distances / total, 0.0, 1.0))


def edit_distance(a: str, b: str) -> int:
    """How many characters must be inserted, deleted or replaced to make one of the other.

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
