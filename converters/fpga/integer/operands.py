"""What operators say of themselves, checked: constants, windows, weights of groups."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from converters.fpga.integer.graph import Pads, Pair, Shape
from converters.fpga.integer.values import Constant, Value, View

NO_PADS: Pads = (0, 0, 0, 0)


def view_of(value: Value | None) -> View:
    """An operand that is computed."""
    if not isinstance(value, View):
        raise ValueError("its operand is a constant")  # noqa: TRY004 -- the model's, not ours
    return value


def constant_of(value: Value | None, otherwise: str) -> Constant:
    """An operand that is constant; else the operator is refused with `otherwise`."""
    if not isinstance(value, Constant):
        raise ValueError(otherwise)  # noqa: TRY004 -- the model's, not ours
    return value


def bias_of(inputs: list[Value | None], count: int) -> np.ndarray:
    """The third operand, one value an output; zeros where there is none."""
    if len(inputs) < 3 or inputs[2] is None:  # noqa: PLR2004
        return np.zeros(count)
    bias = constant_of(inputs[2], "its bias is computed").value
    return np.broadcast_to(bias.astype(np.float64).reshape(-1), (count,)).copy()


def per_output(step: np.ndarray | None, count: int) -> np.ndarray | None:
    """The scale of each output's weights, where weights have scales by output or one for all."""
    if step is None:
        return None
    if step.size not in {1, count} or (step.ndim > 1 and step.shape[0] != step.size):
        raise ValueError("its weights have scales that differ within an output")
    return np.broadcast_to(step.ravel(), (count,)).copy()


def ungrouped(weights: np.ndarray, group: int) -> np.ndarray:
    """Weights of every output for every input: zeros for those of other groups."""
    if group == 1:
        return weights
    outputs, inside = weights.shape[:2]
    whole = np.zeros((outputs, inside * group, *weights.shape[2:]), weights.dtype)
    for output in range(outputs):
        first = output // (outputs // group) * inside
        whole[output, first : first + inside] = weights[output]
    return whole


def dilated(weights: np.ndarray, dilations: Pair) -> np.ndarray:
    """Weights [outputs, inputs, height, width] with zeros between them, so that none is skipped.

    >>> dilated(np.ones((1, 1, 1, 2)), (1, 3)).ravel().tolist()
    [1.0, 0.0, 0.0, 1.0]
    """
    sizes = [(n - 1) * d + 1 for n, d in zip(weights.shape[2:], dilations, strict=True)]
    spread = np.zeros((*weights.shape[:2], *sizes), weights.dtype)
    spread[:, :, :: dilations[0], :: dilations[1]] = weights
    return spread


def pair(values: Sequence[int]) -> Pair:
    """Height and width."""
    if len(values) != 2:  # noqa: PLR2004
        raise ValueError(f"it has {len(values)} spatial axes, supported are 2")
    return int(values[0]), int(values[1])


def pads_of(given: dict[str, Any], shape: Shape, kernel: Pair, strides: Pair) -> Pads:
    """Padding as the attributes give it, or as `auto_pad` computes it."""
    kind = given.get("auto_pad", "NOTSET")
    if kind in {"NOTSET", "VALID"}:
        top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
        return int(top), int(left), int(bottom), int(right)
    before, after = [], []
    for size, window, stride in zip(shape[:2], kernel, strides, strict=True):
        missing = max((-(-size // stride) - 1) * stride + window - size, 0)
        small, large = missing // 2, missing - missing // 2
        before.append(large if kind == "SAME_LOWER" else small)
        after.append(small if kind == "SAME_LOWER" else large)
    return before[0], before[1], after[0], after[1]


def slid(shape: Shape, kernel: Pair, strides: Pair, pads: Pads, channels: int) -> Shape:
    """The shape that a sliding window makes."""
    height = (shape[0] + pads[0] + pads[2] - kernel[0]) // strides[0] + 1
    width = (shape[1] + pads[1] + pads[3] - kernel[1]) // strides[1] + 1
    return height, width, channels


def tiles(shape: Shape, kernel: Pair, strides: Pair, pads: Pads) -> bool:
    """Whether windows end exactly at the border."""
    return not any(
        (shape[axis] + pads[axis] + pads[axis + 2] - kernel[axis]) % strides[axis]
        for axis in (0, 1)
    )


def permutation(places: np.ndarray) -> np.ndarray:
    """Places in one row, each once."""
    flat = places.ravel()
    if len(set(flat.tolist())) != len(flat):
        raise ValueError("it reads a value twice")
    return flat


def is_code(dtype: np.dtype) -> bool:
    """Whether a type is an integer of at most 8 bits, those of ONNX included that numpy lacks."""
    return dtype.name.removeprefix("u") in {"int8", "int4", "int2"}


def levels_of(dtype: np.dtype) -> tuple[int, int, int]:
    """Of a type of codes the bits, the least and the largest."""
    bits = int(dtype.name.removeprefix("u").removeprefix("int"))
    signed = not dtype.name.startswith("u")
    return bits, -(1 << (bits - 1)) * signed, (1 << (bits - signed)) - 1
