"""Static quantization by a recipe's rules: QDQ files for onnxruntime, the same bytes each time.

Three steps, each a function: `prepare` folds what inference folds anyway (batch norms,
constants), so that quantization sees the graph that will run; `calibrate` streams samples
through it and keeps one minimum and maximum a tensor, never an activation; `quantize` writes
the QDQ model with onnxruntime's quantizer. onnxruntime's own calibrator is not used: it holds
a row of every tensor for every sample, and drops rows where it is told to hold fewer.

No clock and no set order gets into the bytes, and every session has one thread.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import add_infer_metadata

from converters.recipe import Method, Parameters, Rule, method_of
from edgeml.errors import ModelError

_LEAST_OPSET = 13  # the first with a scale per channel
_FLOATS = (onnx.TensorProto.FLOAT,)
_TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


class NotQuantizableError(ModelError):
    """The model is good, but cannot be quantized this way: the candidate is refused."""


class Range(msgspec.Struct, frozen=True):
    """The least and the greatest value that calibration saw in a tensor."""

    low: float
    high: float


class Quantized(msgspec.Struct, frozen=True, kw_only=True):
    """A quantized model; `nodes` counts those whose weights are integers now."""

    data: bytes
    nodes: int


def prepare(model: bytes) -> Any:
    """Return the model as it will be quantized: folded, shapes inferred, nodes named.

    Raises:
        NotQuantizableError: onnxruntime or onnx cannot do that to this model.
    """
    with _refusing("prepared"):
        return _prepared(model)


def calibrate(prepared: Any, feeds: Iterable[Sequence[np.ndarray]]) -> dict[str, Range]:
    """Run samples through the prepared model and return the range of every float tensor.

    Memory does not grow with the number of samples.

    Raises:
        ModelError: there are no samples.
        NotQuantizableError: the model cannot be observed.
    """
    wanted = _float_tensors(prepared)
    with _refusing("calibrated"):
        session = _observer(prepared, wanted)
    names = [i.name for i in session.get_inputs()]
    bounds: np.ndarray | None = None
    for feed in feeds:
        with _refusing("calibrated"):
            outputs = session.run(None, dict(zip(names, feed, strict=True)))
        seen = np.array(outputs, np.float32).reshape(-1, 2)
        if bounds is None:
            bounds = seen
        else:
            np.minimum(bounds[:, 0], seen[:, 0], out=bounds[:, 0])
            np.maximum(bounds[:, 1], seen[:, 1], out=bounds[:, 1])
    if bounds is None:
        raise ModelError("There is nothing to calibrate with.", why="No sample reached the model.")
    return {
        tensor: Range(float(low), float(high))
        for tensor, (low, high) in zip(wanted, bounds, strict=True)
    }


def quantize(prepared: Any, ranges: dict[str, Range], rules: Sequence[Rule]) -> Quantized:
    """Quantize the nodes that the rules choose.

    Raises:
        NotQuantizableError: a tensor's range is not finite, the rules quantize nothing or ask
            for what is not known, or onnxruntime's quantizer stops at this model.
    """
    for tensor, seen in ranges.items():
        if not np.isfinite([seen.low, seen.high]).all():
            raise NotQuantizableError(
                f"The tensor {tensor} overflows during calibration.",
                why=f"Its range is {seen.low} to {seen.high}.",
            )
    chosen = _chosen(prepared, rules)
    with _refusing("quantized"):
        result = _quantized(prepared, ranges, chosen)
        nodes = _integer_weights(result)
    if not nodes:
        raise NotQuantizableError(
            "The recipe quantizes nothing.", why="No weight of the model became an integer."
        )
    return Quantized(data=result.SerializeToString(deterministic=True), nodes=nodes)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn what onnx and onnxruntime raise on graphs they were not written for into a refusal."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # theirs derive only from Exception, and nothing else runs here
        raise NotQuantizableError(f"The model cannot be {what}.", why=_plain(error)) from error


def _prepared(model: bytes) -> Any:
    proto = onnx.load_model_from_string(_folded(model))
    used = {node.domain for node in proto.graph.node} | {""}
    kept = [o for o in proto.opset_import if o.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    if next(o.version for o in kept if o.domain == "") < _LEAST_OPSET:
        proto = onnx.version_converter.convert_version(proto, _LEAST_OPSET)
    del proto.graph.value_info[:]  # folding leaves the shapes of tensors that are gone
    names: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        if not node.name or node.name in names:
            node.name = f"{node.op_type}_{index}"
        names.add(node.name)
    return onnx.shape_inference.infer_shapes(proto)


def _observer(prepared: Any, tensors: Sequence[str]) -> Any:
    """A session that answers with the least and the greatest value of each tensor."""
    observed = onnx.ModelProto()
    observed.CopyFrom(prepared)
    del observed.graph.output[:]
    for index, tensor in enumerate(tensors):
        for bound, operator in (("low", "ReduceMin"), ("high", "ReduceMax")):
            name = f"edgeml_{bound}_{index}"
            observed.graph.node.append(
                onnx.helper.make_node(operator, [tensor], [name], name=name, keepdims=0)
            )
            observed.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [])
            )
    options = _session_options(ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    return ort.InferenceSession(
        observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _chosen(prepared: Any, rules: Sequence[Rule]) -> dict[str, Rule]:
    """The nodes to quantize by name, each with its rule."""
    decisions = {
        n.name: method_of(rules, name=n.name, operator=n.op_type) for n in prepared.graph.node
    }
    chosen = {name: rule for name, rule in decisions.items() if rule.method is Method.STATIC_QDQ}
    if not chosen:
        raise NotQuantizableError("The recipe quantizes nothing.", why="No node matches its rules.")
    return chosen


def _quantized(prepared: Any, ranges: dict[str, Range], chosen: dict[str, Rule]) -> Any:
    parameters = _the_parameters(chosen.values())
    proto = onnx.ModelProto()
    proto.CopyFrom(prepared)
    add_infer_metadata(proto)
    quantizer = QDQQuantizer(
        proto,
        parameters.per_channel,
        parameters.reduced_range,
        _TYPES[parameters.weight],
        _TYPES[parameters.activation],
        _tensors_data(ranges),
        list(chosen),
        [],
        sorted({n.op_type for n in proto.graph.node if n.name in chosen}),
        {"ActivationSymmetric": parameters.activation == "int8"},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result = quantizer.model.model
    _leave_final_products_in_float(result)
    del result.metadata_props[:]
    return result


def _folded(model: bytes) -> bytes:
    options = _session_options(ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    with tempfile.TemporaryDirectory(prefix="edgeml-") as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()


def _plain(error: Exception) -> str:
    """Onnxruntime's sentence without its codes and source paths."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    words = lines[0].split(" : ")[-1]
    return words.rsplit("&) ", 1)[-1].rstrip(". ") + "."


def _session_options(level: Any) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its warnings speak of the throw-away session
    return options


def _float_tensors(prepared: Any) -> list[str]:
    constants = {tensor.name for tensor in prepared.graph.initializer}
    infos = (*prepared.graph.input, *prepared.graph.value_info, *prepared.graph.output)
    names = {i.name for i in infos if i.type.tensor_type.elem_type in _FLOATS}
    return sorted(names - constants)


def _the_parameters(rules: Iterable[Rule]) -> Parameters:
    distinct = {rule.parameters for rule in rules}
    if len(distinct) > 1:
        raise NotQuantizableError(
            "The recipe mixes quantization parameters.",
            why="One model can have one set of types and ranges; float32 may be mixed in.",
        )
    parameters = distinct.pop()
    if not {parameters.activation, parameters.weight} <= set(_TYPES):
        raise NotQuantizableError(
            f"The recipe asks for {parameters.activation} and {parameters.weight}.",
            why=f"Known are {' and '.join(sorted(_TYPES))}.",
        )
    if parameters.calibration != "minmax":
        raise NotQuantizableError(
            f"The recipe asks for the calibration {parameters.calibration!r}.",
            why="Known is minmax.",
        )
    return parameters


def _tensors_data(ranges: dict[str, Range]) -> Any:
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
    producer = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {o.name for o in graph.output}
    for restore in [n for n in graph.node if n.op_type == "DequantizeLinear"]:
        rounding = producer.get(restore.input[0])
        if rounding is None or rounding.op_type != "QuantizeLinear":
            continue
        made, read = rounding.input[0], restore.output[0]
        final = producer.get(made)
        alone = len(readers.get(made, [])) == 1 and len(readers[restore.input[0]]) == 1
        float_readers = all(n.op_type == "Softmax" for n in readers.get(read, []))
        is_read = read in outputs or readers.get(read)
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
    used = {name for node in graph.node for name in node.input} | outputs
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


def _integer_weights(model: Any) -> int:
    integers = {
        t.name
        for t in model.graph.initializer
        if t.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) and t.dims
    }
    return sum(
        1 for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in integers
    )
