"""Weight-only quantization: the weights of products in blocks of 4 or 8 bits.

For models whose size is their MatMul weights. Each chosen product becomes a `MatMulNBits`, an
operator of onnxruntime that OpenVINO reads too; onnxruntime's own kernels round the weights.
"""

from typing import Any

import numpy as np
import onnx
from onnxruntime.capi import _pybind_state as kernels

from converters.methods.choice import Choice, refuse_types
from converters.methods.graph import attributes, constants, drop_unused_constants
from converters.methods.prepare import Prepared, copy_of
from converters.methods.refusal import NotQuantizableError, refusing
from converters.methods.result import Quantized
from converters.recipe import Parameters

_BITS = {"int4": 4, "int8": 8}
_ACCURACY = {"float32": 0, "int8": 4, "uint8": 4}  # MatMulNBits' accuracy_level
_BLOCKS = (16, 32, 64, 128, 256)
_DOMAIN = "com.microsoft"


def quantize_weights(prepared: Prepared, choice: Choice) -> Quantized:
    """Quantize the constant weights of the chosen MatMul and Gemm nodes, in blocks.

    Raises:
        NotQuantizableError: the parameters are not known, or none of the chosen nodes is a
            product with a constant matrix.
    """
    parameters = choice.parameters
    refuse_types(parameters, activations=tuple(_ACCURACY), weights=tuple(_BITS))
    if parameters.block not in _BLOCKS:
        raise NotQuantizableError(
            f"The recipe asks for blocks of {parameters.block} weights.",
            why=f"Known are {', '.join(map(str, _BLOCKS))}.",
        )
    proto = copy_of(prepared.proto)
    with refusing("quantized"):
        changed = _replace(proto.graph, set(choice.nodes), parameters)
        drop_unused_constants(proto.graph)
    if not changed:
        raise NotQuantizableError(
            "Weight-only quantization changes nothing in this model.",
            why="None of the chosen nodes is a MatMul or Gemm with a constant matrix.",
        )
    if _DOMAIN not in {o.domain for o in proto.opset_import}:
        proto.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    return Quantized(data=proto.SerializeToString(deterministic=True), nodes=changed)


def _replace(graph: Any, chosen: set[str], parameters: Parameters) -> int:
    known = constants(graph)
    nodes: list[Any] = []
    changed = 0
    for node in graph.node:
        matrix = _matrix(node, known) if node.name in chosen else None
        if matrix is None:
            nodes.append(node)
            continue
        tensors = _blocks(node.name, matrix, parameters)
        graph.initializer.extend(tensors)
        nodes.extend(_product(node, matrix, [t.name for t in tensors], parameters))
        changed += 1
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def _matrix(node: Any, known: dict[str, Any]) -> np.ndarray | None:
    """The constant right-hand matrix of a product, of shape (inputs, outputs), or None."""
    if node.op_type not in {"Gemm", "MatMul"} or node.domain or node.input[1] not in known:
        return None
    tensor = known[node.input[1]]
    if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 2:  # noqa: PLR2004
        return None
    settings = attributes(node)
    plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0
    if settings.get("transA") or not plain:
        return None
    values = onnx.numpy_helper.to_array(tensor)
    return np.ascontiguousarray(values.T if settings.get("transB") else values)


def _blocks(name: str, matrix: np.ndarray, parameters: Parameters) -> list[Any]:
    """Weights, scales and zero points of a matrix, as `MatMulNBits` reads them."""
    rows, columns = matrix.shape
    bits, block = _BITS[parameters.weight], parameters.block
    blocks = -(-rows // block)
    padded = np.pad(matrix, ((0, blocks * block - rows), (0, 0)))
    packed = np.zeros((columns, blocks, block * bits // 8), np.uint8)
    scales = np.zeros((columns, blocks), np.float32)
    zeros = np.zeros((columns, -(-blocks * bits // 8)), np.uint8)
    kernel = (
        kernels.quantize_matmul_4bits if bits == _BITS["int4"] else kernels.quantize_matmul_8bits
    )
    kernel(packed, padded, scales, zeros, block, columns, rows, False)
    return [
        onnx.numpy_helper.from_array(packed, f"{name}_weights"),
        onnx.numpy_helper.from_array(scales, f"{name}_scales"),
        onnx.numpy_helper.from_array(zeros, f"{name}_zero_points"),
    ]


def _product(
    node: Any, matrix: np.ndarray, tensors: list[str], parameters: Parameters
) -> list[Any]:
    biased = node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]  # noqa: PLR2004
    output = f"{node.output[0]}_product" if biased else node.output[0]
    level = _ACCURACY[parameters.activation]
    settings: dict[str, Any] = {"accuracy_level": level} if level else {}
    made = [
        onnx.helper.make_node(
            "MatMulNBits",
            [node.input[0], *tensors],
            [output],
            name=node.name,
            domain=_DOMAIN,
            K=matrix.shape[0],
            N=matrix.shape[1],
            bits=_BITS[parameters.weight],
            block_size=parameters.block,
            **settings,
        )
    ]
    if biased:
        made.append(
            onnx.helper.make_node(
                "Add", [output, node.input[2]], list(node.output), name=f"{node.name}_bias"
            )
        )
    return made
