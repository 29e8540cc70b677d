"""A model's nodes as constraints look at them: attributes, shapes, constants and work."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from converters.axes import fix_sizes
from converters.model import FloatModel

Shape = tuple[int, ...]
_CONVOLUTIONS = {"Conv", "ConvTranspose"}


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """A node's input or output; an axis that is not known is 0, an unknown shape None."""

    name: str
    shape: Shape | None = None
    dtype: str = ""
    value: Any = None  # the numbers of a constant, as a numpy array

    @property
    def is_constant(self) -> bool:
        """Whether the model holds its numbers."""
        return self.value is not None


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the float model; `inputs` that are left out have an empty name."""

    name: str
    operator: str
    attributes: Mapping[str, Any] = {}
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    @property
    def shape(self) -> Shape:
        """Of the first output; empty where it is not known."""
        return (self.outputs[0].shape or ()) if self.outputs else ()

    @property
    def kernel(self) -> Shape:
        """Of a convolution or a pool, without channels."""
        if (given := self.attributes.get("kernel_shape")) is not None:
            return tuple(given)
        weight = self.inputs[1].shape if len(self.inputs) > 1 else None
        return weight[2:] if weight and self.operator in _CONVOLUTIONS else ()

    @property
    def strides(self) -> Shape:
        """Of a convolution or a pool, 1 where nothing is said."""
        return tuple(self.attributes.get("strides", (1,) * len(self.kernel)))

    @property
    def dilations(self) -> Shape:
        """Of a convolution or a pool, 1 where nothing is said."""
        return tuple(self.attributes.get("dilations", (1,) * len(self.kernel)))

    @property
    def group(self) -> int:
        """Of a convolution."""
        return int(self.attributes.get("group", 1))

    @property
    def macs(self) -> int:
        """Multiplications of one inference; 0 for what only moves, joins or compares values."""
        shapes = [tensor.shape for tensor in self.inputs]
        if self.operator in _CONVOLUTIONS and len(shapes) > 1 and shapes[0] and shapes[1]:
            image = self.shape if self.operator == "Conv" else shapes[0]
            per_value = prod(shapes[1][1:])
            return prod(image) * per_value
        if self.operator in {"Gemm", "MatMul"} and shapes[0] and shapes[1]:
            turned = self.attributes.get("transA", 0)
            return prod(self.shape) * shapes[0][-2 if turned else -1]
        return 0


def nodes_of(model: FloatModel, shapes: Mapping[str, Shape]) -> tuple[Node, ...]:
    """The nodes of an ONNX model with shapes inferred; constants are values, no nodes.

    Args:
        model: the float model.
        shapes: the whole shape of each input.
    """
    proto = onnx.load_model_from_string(model.data)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    sizes = {
        (name, axis): size for name, shape in shapes.items() for axis, size in enumerate(shape)
    }
    _forget_outputs(proto)
    fix_sizes(proto, {}, sizes)
    proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    tensors = _tensors(proto.graph)
    return tuple(
        Node(
            name=node.name or f"{node.op_type}_{index}",
            operator=node.op_type,
            attributes={a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
            inputs=tuple(tensors.get(name, Tensor(name=name)) for name in node.input),
            outputs=tuple(tensors.get(name, Tensor(name=name)) for name in node.output),
        )
        for index, node in enumerate(proto.graph.node)
        if node.op_type != "Constant"
    )


def _forget_outputs(proto: Any) -> None:
    """Drop what the file says of shapes in between, which a fixed batch changes."""
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")


def _tensors(graph: Any) -> dict[str, Tensor]:
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in kind.shape.dim) if kind.HasField("shape") else None
        found[value.name] = Tensor(name=value.name, shape=shape, dtype=_dtype(kind.elem_type))
    constants = [
        *((tensor.name, tensor) for tensor in graph.initializer),
        *(
            (node.output[0], attribute.t)
            for node in graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        ),
    ]
    for name, tensor in constants:
        value = numpy_helper.to_array(tensor)
        found[name] = Tensor(name=name, shape=value.shape, dtype=value.dtype.name, value=value)
    return found


def _dtype(element: int) -> str:
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element)).name
    except (KeyError, TypeError):
        return ""


def by_name(nodes: Sequence[Node]) -> dict[str, Node]:
    """The nodes by their names."""
    return {node.name: node for node in nodes}
