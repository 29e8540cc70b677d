"""Static quantization: a QDQ file with fixed ranges, written by onnxruntime's quantizer.

Such a file needs graph optimisation at EXTENDED or above to be fast. No clock and no set order
gets into the bytes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import add_infer_metadata

from converters.methods.choice import Choice, refuse_types
from converters.methods.graph import drop_unused_constants, producers, readers
from converters.methods.histograms import Range
from converters.methods.islands import protect_islands
from converters.methods.prepare import Prepared, copy_of
from converters.methods.refusal import NotQuantizableError, refusing
from converters.methods.result import Quantized
from converters.recipe import Parameters

_TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
_ACTIVATIONS = _TYPES | {"uint16": QuantType.QUInt16}


def quantize_static(
    prepared: Prepared, ranges: Mapping[str, Range], choice: Choice, *, whole: bool = False
) -> Quantized:
    """Quantize the chosen nodes with these ranges.

    Args:
        prepared: the model.
        ranges: of its tensors.
        choice: the nodes, and how.
        whole: quantize what the last products give, too: accelerators of integers take no float.

    Raises:
        NotQuantizableError: a chosen node's tensor has no finite range, the parameters are not
            known, no weight became an integer, or onnxruntime's quantizer stops at this model.
    """
    refuse_types(choice.parameters, activations=tuple(_ACTIVATIONS), weights=tuple(_TYPES))
    _refuse_overflow(prepared, ranges, choice)
    with refusing("quantized"):
        result = _quantized(prepared, ranges, choice, whole=whole)
        nodes = _integer_weights(result)
    if not nodes:
        raise NotQuantizableError(
            "The recipe quantizes nothing.", why="No weight of the model became an integer."
        )
    return Quantized(data=result.SerializeToString(deterministic=True), nodes=nodes)


def _refuse_overflow(prepared: Prepared, ranges: Mapping[str, Range], choice: Choice) -> None:
    chosen = set(choice.nodes)
    for node in prepared.proto.graph.node:
        if node.name not in chosen:
            continue
        for tensor in (*node.input, *node.output):
            seen = ranges.get(tensor)
            if seen and not np.isfinite([seen.low, seen.high]).all():
                raise NotQuantizableError(
                    f"The tensor {tensor} overflows during calibration.",
                    why=f"At the {node.op_type} {node.name} it spans {seen.low} to {seen.high}.",
                    fix=f"Keep {node.name} in float32 by a rule.",
                )


def _quantized(
    prepared: Prepared, ranges: Mapping[str, Range], choice: Choice, *, whole: bool
) -> Any:
    parameters = choice.parameters
    proto = copy_of(prepared.proto)
    add_infer_metadata(proto)
    chosen = set(choice.nodes)
    quantizer = QDQQuantizer(
        proto,
        parameters.per_channel,
        parameters.reduced_range,
        _TYPES[parameters.weight],
        _ACTIVATIONS[parameters.activation],
        _tensors_data(ranges),
        list(choice.nodes),
        [],
        sorted({n.op_type for n in proto.graph.node if n.name in chosen}),
        _options(parameters),
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result = quantizer.model.model
    if not whole:
        _leave_final_products_in_float(result)
    protect_islands(result.graph)
    del result.metadata_props[:]
    return result


def _options(parameters: Parameters) -> dict[str, bool]:
    """One zero point for all channels of a weight: kernels have no other, whatever its type."""
    return {"ActivationSymmetric": parameters.activation == "int8", "WeightSymmetric": True}


def _tensors_data(ranges: Mapping[str, Range]) -> Any:
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(seen.low), highest=np.float32(seen.high))
            for name, seen in ranges.items()
        },
    )


def _leave_final_products_in_float(model: Any) -> None:
    """Take away the 8-bit rounding between a last Gemm or MatMul and what reads it in float.

    Their integer kernels can give float results at no cost, and scores of 256 steps tie.
    """
    graph = model.graph
    producer, read_by = producers(graph), readers(graph)
    outputs = {o.name for o in graph.output}
    for restore in [n for n in graph.node if n.op_type == "DequantizeLinear"]:
        rounding = producer.get(restore.input[0])
        if rounding is None or rounding.op_type != "QuantizeLinear":
            continue
        made, read = rounding.input[0], restore.output[0]
        final = producer.get(made)
        alone = len(read_by.get(made, [])) == 1 and len(read_by[restore.input[0]]) == 1
        float_readers = all(n.op_type == "Softmax" for n in read_by.get(read, []))
        is_read = read in outputs or read_by.get(read)
        if (
            final is None
            or final.op_type not in {"Gemm", "MatMul"}
            or not (alone and float_readers and is_read)
        ):
            continue
        for index, name in enumerate(final.output):
            if name == made:
                final.output[index] = read
        graph.node.remove(rounding)
        graph.node.remove(restore)
    drop_unused_constants(graph)


def _integer_weights(model: Any) -> int:
    integers = {
        t.name
        for t in model.graph.initializer
        if t.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) and t.dims
    }
    return sum(
        1 for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in integers
    )
