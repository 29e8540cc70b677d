"""What the names of an ONNX graph stand for while it is read: constants, and views of tensors.

A view is an array of places: its shape is the ONNX tensor's, with a batch axis of 1, and each
entry is where that value lies in a tensor of the network, row by row, channel last. So flattening,
reshaping and transposing move no data: they change the view, and whoever holds weights sorts them.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx

from converters.fpga.integer.graph import Shape
from converters.fpga.integer.network import Format
from converters.methods.refusal import NotQuantizableError


@dataclass(frozen=True, eq=False)
class Constant:
    """A value that the model holds; `step` is the scale that it was quantized by, if it was."""

    value: np.ndarray
    step: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class View:
    """A tensor of the network as the ONNX graph sees it; `shared` where several nodes read it.

    `codes` is the format of a view of codes, between `QuantizeLinear` and `DequantizeLinear`.
    """

    tensor: str
    places: np.ndarray
    shared: bool
    codes: Format | None = None


Value = Constant | View

_REMEDY = "Export the model without it, leave it to the pipeline, or choose a CPU or NPU target."


def refuse(node: Any, why: str, fix: str = _REMEDY) -> NotQuantizableError:
    """The error that this node cannot be computed by gateware."""
    named = f" ({node.name})" if node.name else ""
    return NotQuantizableError(
        f"The operator {node.op_type}{named} cannot be computed on an FPGA.", why=why, fix=fix
    )


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name, texts decoded."""
    plain = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in plain.items()}


def channels_first(shape: Shape) -> np.ndarray:
    """The places of a tensor as ONNX sees a picture: (1, channels, height, width)."""
    return np.arange(prod(shape)).reshape(1, *shape).transpose(0, 3, 1, 2)


def folded(node: Any, inputs: list[Constant | None], opset: int) -> list[Constant]:
    """What a node computes of constants."""
    from onnx.reference import ReferenceEvaluator

    given = {n: v.value for n, v in zip(node.input, inputs, strict=True) if v is not None}
    entered = [onnx.helper.make_tensor_value_info(n, 0, None) for n in given]
    left = [onnx.helper.make_tensor_value_info(n, 0, None) for n in node.output]
    graph = onnx.helper.make_graph([node], "constants", entered, left)
    opsets = [onnx.helper.make_opsetid("", opset)]
    made = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets)).run(None, given)
    return [Constant(np.asarray(value)) for value in made]


def dequantized(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> Constant:
    """A constant of codes (`DequantizeLinear`); with a zero point its scale is not kept."""

    def spread(values: np.ndarray) -> np.ndarray:
        if values.size == 1 or codes.ndim < 2:  # noqa: PLR2004
            return values.reshape(-1) if values.size > 1 else values.reshape(())
        shape = [1] * codes.ndim
        shape[axis] = -1
        return values.reshape(shape)

    step, zeros = spread(np.asarray(scale, np.float64)), spread(np.asarray(zero, np.int64))
    value = ((codes - zeros) * step).astype(np.float32)
    return Constant(value, None if np.any(zero) else step)
