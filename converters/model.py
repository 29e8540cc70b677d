"""The trained model: loaded, checked and described, before any work is spent on it."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import onnx

from edgeml.errors import ModelError
from hardware.runtimes.interface import TensorSpec

_FIX = "Export the model again with torch.onnx.export or the exporter of your framework."
_PROTOBUF_LIMIT = (1 << 31) - 1


class FloatModel(msgspec.Struct, frozen=True, kw_only=True):
    """A checked ONNX model in one piece: `data` holds external weights too, if there were any.

    `inputs` are what a caller feeds, initializers not among them. `matrix_share` is the share
    of the weights that matrix products hold.
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


def load_model(path: Path) -> FloatModel:
    """Load an ONNX file and check that it is one.

    Raises:
        ModelError: there is no such file, it is not ONNX, is malformed or uses an operator set
            that is not known here; the sentence says which.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"No model file {path}.", why="The path does not exist.") from None
    except OSError as error:
        raise ModelError(f"The model {path} cannot be read.", why=f"{error.strerror}.") from None
    proto = _parse(path, raw)
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(
            f"{path} is not an ONNX model.", why="It has no graph with nodes and outputs.", fix=_FIX
        )
    if _has_external_data(proto):
        raw = _in_one_piece(path, proto)
    _check(path, proto)
    known = {tensor.name for tensor in proto.graph.initializer}
    return FloatModel(
        path=path,
        data=raw,
        digest=f"sha256:{hashlib.sha256(raw).hexdigest()}",
        opset=max(
            (o.version for o in proto.opset_import if o.domain in {"", "ai.onnx"}), default=0
        ),
        inputs=tuple(_spec(path, i) for i in proto.graph.input if i.name not in known),
        outputs=tuple(_spec(path, o) for o in proto.graph.output),
        operators=_count_operators(proto),
        parameters=sum(_elements(tensor) for tensor in proto.graph.initializer),
        matrix_share=_matrix_share(proto),
        has_depthwise=any(
            a.name == "group" and a.i > 1
            for node in proto.graph.node
            if node.op_type == "Conv"
            for a in node.attribute
        ),
    )


def the_input(model: FloatModel) -> TensorSpec:
    """The model's only input, with its batch axis first.

    Raises:
        ModelError: there are more inputs than one, or the batch axis is fixed to another
            number than 1.
    """
    if len(model.inputs) != 1:
        names = ", ".join(spec.name for spec in model.inputs) or "none"
        raise ModelError(
            f"The model {model.path} has {len(model.inputs)} inputs.",
            why=f"They are {names}; models with one input can be converted.",
        )
    spec = model.inputs[0]
    if not spec.shape:
        raise ModelError(f"The input {spec.name} of {model.path} has no batch axis.")
    if isinstance(spec.shape[0], int) and spec.shape[0] != 1:
        raise ModelError(
            f"The batch axis of input {spec.name} is fixed to {spec.shape[0]}.",
            why="Devices infer one sample at a time.",
            fix="Export the model with batch size 1 or a dynamic batch axis.",
        )
    return spec


def _parse(path: Path, raw: bytes) -> Any:
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


def _has_external_data(proto: Any) -> bool:
    return any(t.data_location == onnx.TensorProto.EXTERNAL for t in proto.graph.initializer)


def _in_one_piece(path: Path, proto: Any) -> bytes:
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
        data: bytes = proto.SerializeToString(deterministic=True)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"The weights of {path} cannot be read.", why=f"{_first_line(error)}."
        ) from None
    return data


def _check(path: Path, proto: Any) -> None:
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError, TypeError) as error:
        raise ModelError(
            f"The model {path} is malformed.", why=f"{_first_line(error)}.", fix=_FIX
        ) from None


def _spec(path: Path, value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.elem_type:
        raise ModelError(f"{value.name} of {path} is not a tensor.", why="Only tensors are served.")
    shape = tuple(
        int(d.dim_value) if d.HasField("dim_value") else (d.dim_param or "?")
        for d in tensor.shape.dim
    )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(name=value.name, shape=shape, dtype=dtype.name)


def _count_operators(proto: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in proto.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))


def _matrix_share(proto: Any) -> float:
    sizes = {tensor.name: _elements(tensor) for tensor in proto.graph.initializer}
    held = sum(
        sizes.get(name, 0)
        for node in proto.graph.node
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
