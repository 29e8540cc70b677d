"""Cosine: how far the outputs point the same way as the float model's; needs no labels.

It says little about answers: a detector may lose all of its boxes at a cosine of 0.999. It is
for models whose outputs no other metric reads, and for data without labels.
"""

# ruff: noqa: ARG002 -- methods take what the interface hands them

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np

from converters.dataset import Dataset
from converters.metrics.interface import Outputs, Paired, numbers, shape_text
from edgeml.errors import ModelError


class Cosine(msgspec.Struct, frozen=True):
    """The least cosine of any output with the float model's, not below 0."""

    name: str = "cosine"
    paired: ClassVar[Paired] = "mean"
    needs_reference: ClassVar[bool] = True
    needs_inputs: ClassVar[bool] = False
    chance: ClassVar[float] = 0.0

    @property
    def identity(self) -> str:
        """The name."""
        return self.name

    def check(self, dataset: Dataset, outputs: Outputs) -> None:
        """Numeric outputs; any data."""
        for index in range(len(outputs)):
            numbers(outputs, index)

    def outcome(self, outputs: Outputs, label: Any, reference: Outputs) -> float:
        """The cosine of the output that differs most."""
        return min(
            _cosine(numbers(outputs, index), numbers(reference, index))
            for index in range(len(reference))
        )

    def missed(self, label: Any) -> float:
        """No likeness."""
        return 0.0

    def score(self, outcomes: Sequence[Any]) -> float:
        """The mean cosine."""
        return float(np.mean(outcomes))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        raise ModelError(
            "The outputs cannot be compared by their cosine.",
            why=f"The float model's is {shape_text(b)}, this one {shape_text(a)}.",
            fix="Choose a metric that reads such outputs: map, or one of your own.",
        )
    u, v = (np.maximum(x.reshape(-1).astype(np.float64), -1e300) for x in (a, b))
    u, v = (x / max(float(np.abs(x).max(initial=0.0)), np.finfo(float).tiny) for x in (u, v))
    length = float(np.sqrt((u @ u) * (v @ v)))
    if not length:
        return float(not u.any() and not v.any())
    return float(np.clip((u @ v) / length, 0.0, 1.0))
