"""Dynamic quantization: weights are integers in the file, activations become so as they come.

It needs no calibration, and suits recurrent nets and large products of matrices; on
convolutions it is slower than float. The file uses onnxruntime's own operators for LSTM.
"""

from typing import Any

from onnxruntime.quantization import QuantType
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode, add_infer_metadata

from converters.methods.choice import Choice, refuse_types
from converters.methods.graph import attributes, reads_integers
from converters.methods.prepare import Prepared, copy_of
from converters.methods.refusal import NotQuantizableError, refusing
from converters.methods.result import Quantized

_TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
OPERATORS = ("Attention", "Conv", "Gemm", "LSTM", "MatMul")


def quantize_dynamic(prepared: Prepared, choice: Choice) -> Quantized:
    """Quantize the weights of the chosen nodes, and their activations at run time.

    Raises:
        NotQuantizableError: none of the chosen nodes has constant weights and an integer
            kernel, or onnxruntime's quantizer stops at this model.
    """
    refuse_types(choice.parameters, activations=("uint8",), weights=tuple(_TYPES))
    nodes = _able(prepared, choice)
    if not nodes:
        raise NotQuantizableError(
            "Dynamic quantization changes nothing in this model.",
            why=f"None of the chosen nodes is one of {', '.join(OPERATORS)}.",
        )
    with refusing("quantized"):
        result = _quantized(prepared, choice, nodes)
        changed = reads_integers(result.graph)
    if not changed:
        raise NotQuantizableError(
            "Dynamic quantization changes nothing in this model.",
            why="None of the chosen nodes has constant weights.",
        )
    return Quantized(data=result.SerializeToString(deterministic=True), nodes=len(changed))


def _able(prepared: Prepared, choice: Choice) -> dict[str, str]:
    """The operators of the chosen nodes that have an integer kernel, by the node's name."""
    chosen = set(choice.nodes)
    return {
        node.name: node.op_type
        for node in prepared.proto.graph.node
        if node.name in chosen and node.op_type in OPERATORS and not attributes(node).get("layout")
    }


def _quantized(prepared: Prepared, choice: Choice, nodes: dict[str, str]) -> Any:
    proto = copy_of(prepared.proto)
    add_infer_metadata(proto)
    # onnxruntime makes each Gemm a MatMul and an Add before it looks at names.
    names = [f"{n}_MatMul" if operator == "Gemm" else n for n, operator in nodes.items()]
    operators = {"MatMul" if operator == "Gemm" else operator for operator in nodes.values()}
    quantizer = ONNXQuantizer(
        proto,
        choice.parameters.per_channel,
        choice.parameters.reduced_range,
        QuantizationMode.IntegerOps,
        False,
        _TYPES[choice.parameters.weight],
        QuantType.QUInt8,
        None,
        names,
        [],
        sorted(operators),
        {"MatMulConstBOnly": True, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result = quantizer.model.model
    del result.metadata_props[:]
    return result
