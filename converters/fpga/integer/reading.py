"""Read an ONNX model into a `Network`: batch norms folded, activations fused, layouts resolved.

Models may be float, or quantized already: by QONNX's `Quant`, or by pairs of `QuantizeLinear` and
`DequantizeLinear`, with a `Clip` of the codes between them where these have fewer bits. Their
scales are kept where codes have no zero point; other tensors get theirs from calibration. An
operator that gateware does not compute is refused by its name.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from converters.fpga.integer.building import Builder
from converters.fpga.integer.network import Network
from converters.fpga.integer.operators import OPERATORS, supported
from converters.fpga.integer.values import (
    Constant,
    Value,
    View,
    attributes,
    dequantized,
    folded,
    refuse,
)
from converters.methods.refusal import NotQuantizableError
from converters.qonnx import has_quant, lowered

_LARGEST_CONSTANT = 1 << 26  # values that folding constants may make

# The host has the probabilities in floats, so that nothing is lost where the model rounds them.
_AFTER_SOFTMAX = {"Identity", "QuantizeLinear", "DequantizeLinear"}
_AS_PAIRS = "Quantize the model as QDQ (onnxruntime: QuantFormat.QDQ), or give the float model."
_Node = Any


def read(model: bytes, shape: Sequence[int] | None = None) -> Network:
    """The network of an ONNX model.

    Args:
        model: an ONNX file's bytes.
        shape: of one sample, where the model leaves axes free beside the batch.

    Raises:
        NotQuantizableError: it has an operator, or a use of one, that gateware does not compute.
    """
    return _Reader(onnx.load_model_from_string(model), shape).network


class _Reader:
    def __init__(self, proto: Any, given: Sequence[int] | None) -> None:
        proto = lowered(proto) if has_quant(proto) else proto
        graph = proto.graph
        opset = max([o.version for o in proto.opset_import if o.domain == ""], default=13)
        self._builder = Builder(opset)
        self.network = self._builder.network
        self._values: dict[str, Value] = {
            tensor.name: Constant(numpy_helper.to_array(tensor)) for tensor in graph.initializer
        }
        self._uses = Counter(name for node in graph.node for name in node.input if name)
        self._uses.update(output.name for output in graph.output)
        self._enter([i for i in graph.input if i.name not in self._values], given)
        for node in graph.node:
            self._read(node)
        self._leave(list(graph.output))

    def _enter(self, inputs: list[Any], given: Sequence[int] | None) -> None:
        if len(inputs) != 1:
            raise _unfit(f"The model has {len(inputs)} inputs, gateware takes one.")
        kind = inputs[0].type.tensor_type
        shape = tuple(given or (dim.dim_value for dim in kind.shape.dim[1:]))
        if not shape or min(shape) < 1:
            raise _unfit(
                "The model's input has axes of free size beside the batch.",
                "Fix them with --dim NAME=VALUE.",
            )
        if kind.shape.dim[0].dim_value > 1:
            raise _unfit("The model takes a batch of several samples.", "Export it for one.")
        name = inputs[0].name
        view = self._builder.enter(name, shape)
        self._values[name] = View(view.tensor, view.places, self._uses[name] > 1)

    def _leave(self, given: list[Any]) -> None:
        if len(given) != 1:
            raise _unfit(f"The model has {len(given)} outputs, gateware gives one.")
        view = self._values[given[0].name]
        if isinstance(view, Constant) or view.tensor == self.network.input:
            raise _unfit("The model computes nothing.")
        self.network.output = view.tensor
        self.network.output_shape = view.places.shape[1:]
        self.network.output_order = view.places.ravel()

    def _read(self, node: _Node) -> None:
        if self.network.softmax and node.op_type not in _AFTER_SOFTMAX:
            raise refuse(node, "It follows a softmax, which the host computes after the gateware.")
        inputs = [self._values[name] if name else None for name in node.input]
        try:
            made = self._made_of(node, inputs)
        except (ValueError, IndexError, KeyError) as error:
            raise refuse(node, f"{error}.") from None
        for name, value in zip(node.output, made, strict=False):
            if isinstance(value, View):
                shared = value.shared or self._uses[name] > 1
                value = replace(value, shared=shared)  # noqa: PLW2901
            self._values[name] = value

    def _made_of(self, node: _Node, inputs: list[Value | None]) -> Sequence[Value]:
        views = [value for value in inputs if isinstance(value, View)]
        rest = [value for value in inputs if not isinstance(value, View)]
        if self.network.softmax:
            return [views[0]]
        if node.op_type == "Shape" and views:
            return [Constant(np.array(views[0].places.shape, np.int64))]
        if not views:
            return self._constant(node, rest)
        operator = OPERATORS.get(node.op_type)
        if operator is None:
            if node.op_type.startswith("QLinear") or "Integer" in node.op_type:
                raise refuse(node, "It computes with codes itself.", _AS_PAIRS)
            raise refuse(node, f"Known are {', '.join(supported())}.")
        if node.op_type == "Softmax" and self._uses[node.input[0]] > 1:
            raise ValueError("it is not the end of the model")
        return [operator(self._builder, node, inputs)]

    def _constant(self, node: _Node, inputs: list[Constant | None]) -> Sequence[Constant]:
        given = [value.value for value in inputs if value is not None]
        if node.op_type == "DequantizeLinear":
            zero = given[2] if len(given) > 2 else np.zeros(1)  # noqa: PLR2004
            stated = attributes(node)
            if stated.get("block_size", 0):
                raise ValueError("its weights have scales by block")
            codes = given[0].astype(np.int64)
            return [dequantized(codes, given[1], zero, stated.get("axis", 1))]
        made = folded(node, inputs, self._builder.opset)
        if sum(constant.value.size for constant in made) > _LARGEST_CONSTANT:
            raise ValueError("it makes a constant that is too large")
        if node.op_type == "Transpose" and inputs[0] and inputs[0].step is not None:
            step = inputs[0].step
            if step.ndim == made[0].value.ndim:
                step = step.transpose(attributes(node)["perm"])
            return [Constant(made[0].value, step)]
        return made


def _unfit(why: str, fix: str = "") -> NotQuantizableError:
    return NotQuantizableError("The model cannot be computed on an FPGA.", why=why, fix=fix)
