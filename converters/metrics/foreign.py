"""A metric that is not ours: checked when it is found, and held to the interface in use."""

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.attribute import cause_of
from converters.dataset import Dataset
from converters.metrics.interface import Metric, Outputs, Paired
from edgeml.errors import EdgemlError, ModelError, UserError

_METHODS = ("check", "outcome", "score")


def completed(name: str, found: Any, parameter: str) -> Metric:
    """A metric from outside, with what it does not say filled in.

    Args:
        name: as it was asked for.
        found: the metric, or a class or function that makes it.
        parameter: given to the class or function where it is not empty.

    Raises:
        UserError: it is no metric, or cannot be made.
    """
    if isinstance(found, type) or (callable(found) and not hasattr(found, "outcome")):
        try:
            found = found(parameter) if parameter else found()
        except EdgemlError:
            raise
        except Exception as error:
            raise UserError(
                f"The metric {name} cannot be made.", why=f"{cause_of(error)}."
            ) from error
    elif parameter:
        raise UserError(f"No metric {name!r}.", why="It is an object and takes no parameter.")
    missing = [part for part in _METHODS if not callable(getattr(found, part, None))]
    if missing:
        raise UserError(
            f"{name} is no metric.",
            why=f"It has no {missing[0]}; see converters.metrics.interface.Metric.",
        )
    if getattr(found, "paired", None) not in {"binary", "mean", "set"}:
        raise UserError(
            f"{name} is no metric.", why='Its `paired` is none of "binary", "mean" and "set".'
        )
    return Foreign(name, found)


class Foreign:
    """A metric from outside: what it raises becomes a sentence, what it leaves out a default."""

    def __init__(self, name: str, metric: Any) -> None:
        self._metric = metric
        self.name = name
        self.identity = f"{name} {getattr(metric, 'identity', '')} {_source_digest(metric)}"
        self.paired: Paired = metric.paired
        self.needs_reference = bool(getattr(metric, "needs_reference", False))
        self.needs_inputs = bool(getattr(metric, "needs_inputs", False))
        self.chance = float(getattr(metric, "chance", 0.0))
        if callable(getattr(metric, "scores", None)):
            self.scores = self._scores

    def check(self, dataset: Dataset, outputs: Outputs) -> None:
        """Its own check."""
        self._call("check", dataset, outputs)

    def outcome(self, outputs: Outputs, label: Any, reference: Outputs) -> Any:
        """Its own outcome; for `binary` a bool, for `mean` a float in [0, 1].

        Raises:
            ModelError: it is not, or the metric fails.
        """
        made = self._call("outcome", outputs, label, reference)
        if self.paired == "set":
            return made
        value = float(made)
        if not 0 <= value <= 1 or (self.paired == "binary" and value not in {0.0, 1.0}):
            raise ModelError(
                f"The metric {self.name} gives an outcome that is out of range.",
                why=f"It is {value:g}; a {self.paired} metric's is "
                f"{'true or false' if self.paired == 'binary' else 'between 0 and 1'}.",
            )
        return bool(value) if self.paired == "binary" else value

    def missed(self, label: Any) -> Any:
        """Its own, else the outcome of a wrong answer.

        Raises:
            ModelError: it is a set metric that does not say.
        """
        if callable(getattr(self._metric, "missed", None)):
            return self._call("missed", label)
        if self.paired == "set":
            raise ModelError(
                f"The metric {self.name} does not say what a sample counts in which the "
                "pipeline found nothing.",
                fix="Give it a method missed(label) that returns an outcome.",
            )
        return False if self.paired == "binary" else 0.0

    def score(self, outcomes: Sequence[Any]) -> float:
        """Its own score."""
        value = float(self._call("score", outcomes))
        if not np.isfinite(value):
            raise ModelError(f"The metric {self.name} gives a score that is no number.")
        return value

    def _scores(self, outcomes: Sequence[Any], weights: np.ndarray) -> np.ndarray:
        return np.asarray(self._call("scores", outcomes, weights), np.float64)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._metric, method)(*arguments)
        except EdgemlError:
            raise
        except Exception as error:  # a user's code may raise anything
            raise ModelError(
                f"The metric {self.name} failed in {method}.", why=f"{cause_of(error)}."
            ) from error


def _source_digest(metric: Any) -> str:
    """SHA-256 of the file that defines the metric; what that file imports is not followed."""
    try:
        file = inspect.getsourcefile(type(metric))
        return hashlib.sha256(Path(file or "").read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""
