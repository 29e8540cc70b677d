"""Static quantization with ranges that a test gives or takes from a few samples."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from converters import methods
from converters.methods import NotQuantizableError, Prepared, Quantized, Range
from converters.methods.choice import choose
from converters.methods.static import quantize_static
from converters.recipe import Rule

__all__ = ["NotQuantizableError", "Quantized", "Range", "calibrate", "prepare", "quantize"]


def prepare(model: bytes) -> Any:
    """Return the model as it will be quantized; see `methods.prepare`."""
    return methods.prepare(model).proto


def calibrate(prepared: Any, feeds: Iterable[Sequence[np.ndarray]]) -> dict[str, Range]:
    """Return the extremes of every float tensor; see `methods.observe`."""
    return methods.observe(Prepared(prepared), lambda: feeds).seen


def quantize(prepared: Any, ranges: dict[str, Range], rules: Sequence[Rule]) -> Quantized:
    """Quantize the nodes that the rules choose with these ranges.

    Raises:
        NotQuantizableError: see `methods.quantize`; or the rules ask for other ranges.
    """
    choice = choose(Prepared(prepared), rules)
    if choice.parameters.calibration != "minmax":
        raise NotQuantizableError(
            f"The recipe asks for the calibration {choice.parameters.calibration!r}.",
            why="Known is minmax.",
        )
    return quantize_static(Prepared(prepared), ranges, choice)
