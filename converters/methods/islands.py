"""Keep in float what a recipe keeps in float, between nodes that are quantized.

onnxruntime's optimizer `WeightBiasQuantization` (core/optimizer/qdq_transformer, on at every
level but "disabled") takes a float Conv, ConvTranspose or Gemm between a DequantizeLinear and
a QuantizeLinear for an omission, and rounds its weights to 8 bits with one scale: worse than
what the recipe avoided. It looks past Relu and Clip, but at no other activation; a LeakyRelu,
which kernels compute on the way, says the same and stops it.
"""

from typing import Any

import onnx

from converters.methods.graph import constants, producers, readers

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
# What onnxruntime moves a QuantizeLinear or DequantizeLinear past.
_MOVING = frozenset(
    {"Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose",
     "Unsqueeze"}
)  # fmt: skip


def protect_islands(graph: Any) -> None:
    """Make onnxruntime leave the weights of float layers between rounded tensors alone."""
    known, made_by, read_by = constants(graph), producers(graph), readers(graph)
    nodes = []
    for node in graph.node:
        nodes.append(node)
        is_layer = node.op_type in _LAYERS and node.input[1] in known
        if not (is_layer and _is_restored(node.input[0], made_by)):
            continue
        output = node.output[0]
        if not _is_rounded(output, read_by):
            continue
        following = read_by[output]
        if len(following) == 1 and following[0].op_type == "Relu":
            following[0].op_type = "LeakyRelu"
            following[0].attribute.append(onnx.helper.make_attribute("alpha", 0.0))
            continue
        node.output[0] = f"{output}_in_float"
        name = f"{node.name}_in_float"
        nodes.append(
            onnx.helper.make_node("LeakyRelu", [node.output[0]], [output], name=name, alpha=1.0)
        )
    kept = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _is_restored(tensor: str, made_by: dict[str, Any]) -> bool:
    node = made_by.get(tensor)
    while node is not None and node.op_type in _MOVING:
        node = made_by.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"


def _is_rounded(tensor: str, read_by: dict[str, list[Any]]) -> bool:
    for node in read_by.get(tensor, []):
        if node.op_type == "QuantizeLinear":
            return True
        passes = node.op_type in _MOVING or node.op_type in {"Clip", "Relu"}
        if passes and _is_rounded(node.output[0], read_by):
            return True
    return False


def _copy(node: Any) -> Any:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    return made
