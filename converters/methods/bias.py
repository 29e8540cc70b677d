"""Bias correction: fold what rounding shifts each output channel by into the bias.

Rounding weights and inputs moves the mean of a convolution's output channels (M. Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", 2019). The mean is
measured on samples, for each node with the float model's tensors before it, so that no error
is corrected twice.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import onnx

from converters.methods.calibrate import Feeds
from converters.methods.graph import attributes, constants, producers
from converters.methods.matching import MARK, merge
from converters.methods.prepare import Prepared, copy_of
from converters.methods.refusal import NotQuantizableError, refusing
from converters.methods.sessions import open_model

_BIAS = 2  # a bias is the third input


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    exact: str
    rounded: str
    reduced: tuple[int, ...]  # all axes but the channels


def correct_bias(prepared: Prepared, quantized: bytes, feeds: Feeds) -> Prepared:
    """The float model with biases that make up for the rounding of its quantized form.

    Args:
        prepared: the float model.
        quantized: the model that was made from it, statically, in QDQ form.
        feeds: gives samples; one pass is made.

    Raises:
        NotQuantizableError: the model has no Conv or Gemm whose bias can be corrected.
    """
    with refusing("corrected"):
        merged, pairs = merge(prepared, quantized, isolated=True)
        layers = _layers(prepared, merged, {pair.node for pair in pairs})
        if not layers:
            raise NotQuantizableError(
                "Bias correction changes nothing in this model.",
                why="No quantized Conv or Gemm has constant weights and a plain bias.",
            )
        for index, layer in enumerate(layers):
            _answer_with_error(merged.graph, index, layer)
        session = open_model(merged)
    return Prepared(_with_biases(prepared, _mean_errors(session, layers, feeds)))


def _layers(prepared: Prepared, merged: Any, quantized: set[str]) -> list[_Layer]:
    known = constants(prepared.proto.graph)
    rounded = {n.name.removeprefix(MARK): n for n in merged.graph.node if n.name.startswith(MARK)}
    made_by = producers(merged.graph)
    found = []
    for node in prepared.proto.graph.node:
        if node.name not in quantized or node.op_type not in {"Conv", "Gemm"}:
            continue
        settings = attributes(node)
        weights = known.get(node.input[1])
        biased = len(node.input) > _BIAS and node.input[_BIAS]
        scaled = settings.get("alpha", 1.0) != 1 or settings.get("beta", 1.0) != 1
        if weights is None or scaled or (biased and not _is_plain(known.get(biased))):
            continue
        reads = made_by.get(rounded[node.name].input[1])
        if reads is None or reads.op_type != "DequantizeLinear":
            continue
        is_conv = node.op_type == "Conv"
        found.append(
            _Layer(
                name=node.name,
                exact=node.output[0],
                rounded=rounded[node.name].output[0],
                reduced=(0, *range(2, len(weights.dims))) if is_conv else (0,),
            )
        )
    return found


def _is_plain(bias: Any) -> bool:
    """Whether a bias is a constant with one number a channel."""
    return bias is not None and len(bias.dims) == 1 and bias.dims[0] > 0


def _answer_with_error(graph: Any, index: int, layer: _Layer) -> None:
    axes, error, total, size = (f"edgeml_{w}_{index}" for w in ("axes", "error", "total", "size"))
    graph.initializer.append(
        onnx.numpy_helper.from_array(np.array(layer.reduced, np.int64), name=axes)
    )
    graph.node.extend(
        [
            onnx.helper.make_node("Sub", [layer.exact, layer.rounded], [error], name=error),
            onnx.helper.make_node("ReduceSum", [error, axes], [total], name=total, keepdims=0),
            onnx.helper.make_node("Size", [error], [size], name=size),
        ]
    )
    graph.output.extend(
        [
            onnx.helper.make_tensor_value_info(total, onnx.TensorProto.FLOAT, None),
            onnx.helper.make_tensor_value_info(size, onnx.TensorProto.INT64, []),
        ]
    )


def _mean_errors(session: Any, layers: Sequence[_Layer], feeds: Feeds) -> dict[str, np.ndarray]:
    """For each layer what to add to its output channels, of shape (channels,)."""
    names = [i.name for i in session.get_inputs()]
    totals: list[Any] = [0.0] * len(layers)
    counts = [0] * len(layers)
    for feed in feeds():
        with refusing("corrected"):
            outputs = session.run(None, dict(zip(names, feed, strict=True)))
        for index in range(len(layers)):
            total, size = outputs[2 * index : 2 * index + 2]
            totals[index] = totals[index] + total.astype(np.float64)
            counts[index] += int(size) // total.size
    return {
        layer.name: np.asarray(total / max(1, count), np.float32)
        for layer, total, count in zip(layers, totals, counts, strict=True)
    }


def _with_biases(prepared: Prepared, errors: dict[str, np.ndarray]) -> Any:
    proto = copy_of(prepared.proto)
    known = constants(proto.graph)
    for node in proto.graph.node:
        if node.name not in errors:
            continue
        bias = errors[node.name]
        if len(node.input) > _BIAS and node.input[_BIAS]:
            bias = bias + onnx.numpy_helper.to_array(known[node.input[_BIAS]])
        if not np.isfinite(bias).all():
            continue
        name = f"{node.name}_corrected_bias"
        proto.graph.initializer.append(onnx.numpy_helper.from_array(bias, name))
        del node.input[_BIAS:]
        node.input.append(name)
    return proto
