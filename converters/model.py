"""The trained model: loaded, checked and described, before any work is spent on it.

onnxruntime is the judge of what can be used: a model of any operator set and IR version that it
loads is taken, with weights in other files beside it and with functions of its own. onnx's
checker only finds better words for what is wrong with the rest.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import onnx
import onnx.inliner
import onnxruntime as ort

from converters.methods.sessions import NONE, open_bytes
from converters.qonnx import has_quant, lowered
from converters.recipe import FLOAT, FLOAT16, Precision
from edgeml.errors import ModelError
from hardware.runtimes.formats import ONNX, TFLITE, format_of
from hardware.runtimes.interface import TensorSpec

_FIX = "Export the model again with torch.onnx.export or the exporter of your framework."
_PROTOBUF_LIMIT = (1 << 31) - 1
_QUANTIZED = {
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QGemm",
    "QuantizeLinear",
}
_LACKED = re.compile(r"is not a registered function/op|No Op registered for|NOT_IMPLEMENTED")


class FloatModel(msgspec.Struct, frozen=True, kw_only=True):
    """A checked model in one piece: `data` holds external weights too, if there were any.

    `inputs` are what a caller feeds, initializers not among them. `precision` is that of most of
    its float weights. `matrix_share` is the share
    of the weights that matrix products hold. `format` is the file's; of a `.tflite` model,
    `opset` is 0.
    """

    path: Path
    data: bytes
    digest: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: dict[str, int]
    parameters: int
    matrix_share: float = 0.0
    has_depthwise: bool = False
    format: str = ONNX
    precision: Precision = FLOAT


def load_model(path: Path) -> FloatModel:
    """Load an ONNX or a `.tflite` file and check that it is one.

    Raises:
        ModelError: there is no such file, it is not ONNX, is malformed or newer than what
            onnxruntime reads; the sentence says which. For `.tflite` see
            `converters.litert.model.load_tflite`.
    """
    if format_of(path) == TFLITE:
        from converters.litert.model import load_tflite  # which describes one as this does

        return load_tflite(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"No model file {path}.",
            why="The path does not exist.",
            fix="Give the path of an ONNX or a .tflite file.",
        ) from None
    except OSError as error:
        raise ModelError(f"The model {path} cannot be read.", why=f"{error.strerror}.") from None
    proto = parse(path, raw)
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(
            f"{path} is not an ONNX model.", why="It has no graph with nodes and outputs.", fix=_FIX
        )
    if has_quant(proto):
        proto = lowered(proto)
        raw = proto.SerializeToString(deterministic=True)
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in _tensors(proto)):
        raw = _in_one_piece(path, proto)
    _check(path, proto, raw)
    return describe(path, proto, raw)


def describe(path: Path, proto: Any, data: bytes) -> FloatModel:
    """Describe a checked `onnx.ModelProto`, whose bytes `data` are.

    Raises:
        ModelError: an input or output is no tensor of a known rank.
    """
    known = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in known]
    inlined = onnx.inliner.inline_local_functions(proto) if proto.functions else proto
    nodes = inlined.graph.node
    return FloatModel(
        path=path,
        data=data,
        digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
        opset=max(
            (o.version for o in proto.opset_import if o.domain in {"", "ai.onnx"}), default=0
        ),
        inputs=tuple(_spec(path, value, is_input=True) for value in inputs),
        outputs=tuple(_spec(path, o) for o in proto.graph.output),
        operators=_count_operators(nodes),
        parameters=sum(_elements(tensor) for tensor in _tensors(inlined)),
        matrix_share=_matrix_share(inlined.graph),
        has_depthwise=any(
            a.name == "group" and a.i > 1
            for node in nodes
            if node.op_type == "Conv"
            for a in node.attribute
        ),
        precision=_precision(inlined),
    )


def check_inputs(model: FloatModel) -> None:
    """Refuse a model that nothing can be fed to or read from.

    Raises:
        ModelError: it has no inputs, or texts are among its inputs or outputs.
    """
    if not model.inputs:
        raise ModelError(
            f"The model {model.path} has no inputs.", why="It always computes the same.", fix=_FIX
        )
    for kind, specs in (("input", model.inputs), ("output", model.outputs)):
        for spec in specs:
            if spec.dtype == "object":
                raise ModelError(
                    f"The {kind} {spec.name} of {model.path} holds texts.",
                    why="Devices serve tensors of numbers.",
                    fix="Cut it off with onnx.utils.extract_model, which keeps the inputs and "
                    "outputs that you name.",
                )


def check_float(model: FloatModel) -> None:
    """Refuse an ONNX model that somebody quantized before: nothing is known of its float model.

    Raises:
        ModelError: it holds quantized nodes; the sentence says which.
    """
    found = _quantized_operators(model)
    if found:
        raise ModelError(
            f"The model {model.path} is quantized already.",
            why=f"It has nodes of the type{'s' * (len(found) > 1)} {', '.join(found)}.",
            fix="Give the float model that it was made from.",
        )


def is_quantized(model: FloatModel) -> bool:
    """Whether an ONNX model was quantized before."""
    return bool(_quantized_operators(model))


def _quantized_operators(model: FloatModel) -> list[str]:
    if model.format != ONNX:
        return []
    return [name for name in model.operators if name in _QUANTIZED or name.startswith("QLinear")]


def parse(path: Path, raw: bytes) -> Any:
    """An `onnx.ModelProto` from the bytes of a file.

    Raises:
        ModelError: they are none.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if len(raw) > _PROTOBUF_LIMIT:
        raise ModelError(
            f"The model {path} has {len(raw)} bytes.", why="An ONNX file holds at most 2 GiB."
        )
    try:
        return onnx.load_model_from_string(raw)
    except (DecodeError, ValueError, RecursionError):
        raise ModelError(
            f"{path} is not an ONNX model.", why="Its bytes are no ONNX protobuf.", fix=_FIX
        ) from None


def _tensors(proto: Any) -> Iterator[Any]:
    """Every constant of a model: of its graph, of subgraphs and of functions."""
    yield from _constants(proto.graph.node)
    yield from proto.graph.initializer
    for function in proto.functions:
        yield from _constants(function.node)


def _constants(nodes: Any) -> Iterator[Any]:
    for attribute in (a for node in nodes for a in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in (attribute.g, *attribute.graphs):
            yield from graph.initializer
            yield from _constants(graph.node)


def _in_one_piece(path: Path, proto: Any) -> bytes:
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"The weights of {path} cannot be read.",
            why=f"{_first_line(error)}.",
            fix="Keep the files of its weights beside it, under the names that it gives them.",
        ) from None
    if proto.ByteSize() > _PROTOBUF_LIMIT:
        raise ModelError(
            f"The model {path} is too large.",
            why=f"With its weights it has {proto.ByteSize()} bytes; variants hold at most 2 GiB.",
        )
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


_NEWEST = {
    r"max supported IR version: (\d+)": "the IR version",
    r"support for domain \S+ is till opset (\d+)": "the operator set",
}


def _check(path: Path, proto: Any, data: bytes) -> None:
    try:
        open_bytes(data, NONE)
    except Exception as error:  # noqa: BLE001 -- onnxruntime's errors have no better class
        refused = error
    else:
        return
    for pattern, name in _NEWEST.items():
        if found := re.search(pattern, str(refused)):
            sets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in proto.opset_import)
            raise ModelError(
                f"The model {path} is too new.",
                why=f"onnxruntime {ort.__version__} reads {name} up to {found[1]}; the model has "
                f"the IR version {proto.ir_version} and the operator sets {sets}.",
                fix=f"Export it with {name} {found[1]} or older, or update onnxruntime.",
            )
    if _LACKED.search(str(refused)):  # another runtime may have the operator
        return
    try:
        onnx.checker.check_model(_with_output_shapes(proto))
    except Exception as error:  # noqa: BLE001 -- protobuf, onnx and Python each raise their own
        raise ModelError(
            f"The model {path} is malformed.", why=f"{_first_line(error)}.", fix=_FIX
        ) from None
    said = _first_line(refused).rpartition(" : ")[2].rpartition(" failed:")[2]
    raise ModelError(f"onnxruntime cannot load the model {path}.", why=f"{said}.", fix=_FIX)


def _with_output_shapes(proto: Any) -> Any:
    """A copy with a shape for every output: the checker asks for one, nothing else does."""
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    for output in copied.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.shape.SetInParent()
    return copied


def _spec(path: Path, value: Any, *, is_input: bool = False) -> TensorSpec:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.elem_type:
        raise ModelError(f"{value.name} of {path} is not a tensor.", why="Only tensors are served.")
    if is_input and not tensor.HasField("shape"):
        raise ModelError(
            f"The input {value.name} of {path} has no shape.",
            why="How many axes it has must be known; their sizes may be free.",
            fix=_FIX,
        )
    shape = tuple(
        int(d.dim_value) if d.HasField("dim_value") else (d.dim_param or "?")
        for d in tensor.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(name=value.name, shape=shape, dtype=dtype.name)


def _count_operators(nodes: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in nodes:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))


def _precision(proto: Any) -> Precision:
    sizes = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 0}
    for tensor in _tensors(proto):
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += _elements(tensor)
    return FLOAT16 if sizes[onnx.TensorProto.FLOAT16] > sizes[onnx.TensorProto.FLOAT] else FLOAT


def _matrix_share(graph: Any) -> float:
    sizes = {tensor.name: _elements(tensor) for tensor in graph.initializer}
    held = sum(
        sizes.get(name, 0)
        for node in graph.node
        if node.op_type in {"Gemm", "MatMul"}
        for name in set(node.input)
    )
    return held / max(1, sum(sizes.values()))


def _elements(tensor: Any) -> int:
    total = 1
    for size in tensor.dims:
        total *= size
    return total


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
