"""The Open Inference Protocol v2 over HTTP: its JSON and binary tensors, read and written. Pure.

Source: Open Inference Protocol (kserve/open-inference-protocol, "inference_rest.md"), and for
tensors as bytes behind the JSON the "binary tensor data extension" of the Triton server.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.api.device import ServedModel
from edgeml.errors import UserError
from hardware.runtimes import TensorSpec

Tensor = NDArray[Any]

JSON_LENGTH = "inference-header-content-length"
MAX_AXES = 32
# Bounds of one request: what a device can be asked to hold and to compute at a time.
MAX_JSON_BYTES = 8 << 20
MAX_BATCH = 64
MAX_FREE_ELEMENTS = 8 << 20
_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
_DTYPES = {datatype: dtype for dtype, datatype in _DATATYPES.items()}


class _Input(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}
    data: Any = None


class _Output(msgspec.Struct, frozen=True):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct, frozen=True):
    inputs: tuple[_Input, ...]
    id: str = ""
    outputs: tuple[_Output, ...] = ()
    parameters: dict[str, Any] = {}


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was read: the tensors in the model's order, and how to answer.

    `outputs` are indices of the model's outputs, each with whether it goes out as bytes.
    """

    id: str
    tensors: tuple[Tensor, ...]
    outputs: tuple[tuple[int, bool], ...]


def metadata(model: ServedModel) -> dict[str, Any]:
    """What the protocol says of a model."""
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": model.runtime,
        "inputs": [_described(spec) for spec in model.inputs],
        "outputs": [_described(spec) for spec in model.outputs],
    }


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": _DATATYPES.get(spec.dtype, "BYTES"),
        "shape": [axis if isinstance(axis, int) else -1 for axis in spec.shape],
    }


def read(model: ServedModel, headers: Mapping[str, str], body: bytes) -> Inference:
    """Read an inference request for a model.

    Raises:
        UserError: it is none, or does not fit the model; the sentence says where.
    """
    head, rest = _split(headers, body)
    if len(head) > MAX_JSON_BYTES:  # decoded, a number takes many times its text
        raise UserError(
            "The request's JSON is too long.",
            why=f"It has {len(head)} bytes, allowed are {MAX_JSON_BYTES}.",
            fix="Send tensors as bytes, with binary_data_size.",
        )
    try:
        request = msgspec.json.decode(head, type=_Request)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise UserError("The request cannot be read.", why=f"{error}.") from None
    given: dict[str, Tensor] = {}
    for entry in request.inputs:
        if entry.name in given:
            raise UserError(f"The input {entry.name} is there twice.")
        given[entry.name], rest = _tensor(entry, rest)
    if len(rest):
        raise UserError(
            "The request has bytes that belong to no input.", why=f"{len(rest)} are left over."
        )
    return Inference(
        id=request.id,
        tensors=_in_order(model.inputs, given),
        outputs=_wanted(model.outputs, request),
    )


def write(
    model: ServedModel, request: Inference, outputs: Sequence[Tensor]
) -> tuple[bytes, int | None]:
    """Write the answer.

    Returns:
        The body, and the length of its JSON where tensors follow as bytes.

    Raises:
        UserError: an output cannot be written in JSON.
    """
    described = []
    tail = bytearray()
    for index, as_bytes in request.outputs:
        spec, output = model.outputs[index], np.ascontiguousarray(outputs[index])
        datatype = _DATATYPES.get(output.dtype.name)
        if datatype is None:
            raise UserError(f"The output {spec.name} cannot be sent.", why="It is no number.")
        entry: dict[str, Any] = {
            "name": spec.name,
            "datatype": datatype,
            "shape": list(np.shape(outputs[index])),
        }
        if as_bytes:
            data = output.astype(output.dtype.newbyteorder("<"), copy=False).tobytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            tail += data
        else:
            entry["data"] = _numbers(spec.name, output)
        described.append(entry)
    answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    answer |= {"id": request.id} if request.id else {}
    head = msgspec.json.encode({**answer, "outputs": described})
    return head + tail, len(head) if tail else None


def _split(headers: Mapping[str, str], body: bytes) -> tuple[bytes, memoryview]:
    text = headers.get(JSON_LENGTH)
    if text is None:
        return body, memoryview(b"")
    if not text.isdecimal() or int(text) > len(body):
        raise UserError(
            "The request cannot be read.",
            why=f"Its header {JSON_LENGTH} is {text[:50]!r}, the body has {len(body)} bytes.",
        )
    length = int(text)
    return body[:length], memoryview(body)[length:]


def _tensor(entry: _Input, rest: memoryview) -> tuple[Tensor, memoryview]:
    """One input, and the bytes that are left for the others."""
    dtype = _DTYPES.get(entry.datatype)
    if dtype is None:
        raise UserError(
            f"The input {entry.name} has the datatype {entry.datatype[:50]}.",
            why=f"Known are {', '.join(_DTYPES)}; BYTES is not supported.",
        )
    if len(entry.shape) > MAX_AXES or any(axis < 0 for axis in entry.shape):
        raise UserError(f"The input {entry.name} has a shape that no tensor has.")
    if "shared_memory_region" in entry.parameters:
        raise UserError(
            f"The input {entry.name} is in shared memory.", why="That is not supported."
        )
    size = entry.parameters.get("binary_data_size")
    count = math.prod(entry.shape)
    if size is None:
        return _from_json(entry, dtype, count), rest
    if entry.data is not None:
        raise UserError(f"The input {entry.name} has both data and binary_data_size.")
    needed = count * np.dtype(dtype).itemsize
    if type(size) is not int or size != needed or size > len(rest):
        raise UserError(
            f"The input {entry.name} has the wrong size.",
            why=f"Its shape needs {needed} bytes; binary_data_size is {str(size)[:20]}, "
            f"{len(rest)} bytes are there.",
        )
    little = np.frombuffer(rest[:size], np.dtype(dtype).newbyteorder("<"))
    return little.astype(dtype, copy=False).reshape(entry.shape), rest[size:]


def _from_json(entry: _Input, dtype: str, count: int) -> Tensor:
    if entry.datatype == "FP16":
        raise UserError(
            f"The input {entry.name} is FP16 in JSON.",
            why="The protocol has no JSON for it.",
            fix="Send it as bytes, with binary_data_size.",
        )
    if not isinstance(entry.data, list):
        raise UserError(f"The input {entry.name} has no data.", fix="Give a list of numbers.")
    try:
        raw = np.array(entry.data) if count else np.zeros(0, dtype)
    except (ValueError, OverflowError):
        raise UserError(f"The data of the input {entry.name} is ragged.") from None
    kinds = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[np.dtype(dtype).kind]
    if raw.dtype.kind not in kinds:
        raise UserError(f"The data of the input {entry.name} is not of {entry.datatype}.")
    if raw.size != count:
        raise UserError(
            f"The input {entry.name} has {raw.size} values.", why=f"Its shape needs {count}."
        )
    if np.dtype(dtype).kind in "iu" and count:
        limits = np.iinfo(dtype)
        if int(raw.min()) < limits.min or int(raw.max()) > limits.max:
            raise UserError(
                f"A value of the input {entry.name} is out of {entry.datatype}'s range."
            )
    with np.errstate(over="ignore"):
        return raw.astype(dtype).reshape(entry.shape)


def _in_order(specs: Sequence[TensorSpec], given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    names = [spec.name for spec in specs]
    unknown = [name for name in given if name not in names]
    missing = [name for name in names if name not in given]
    if unknown or missing:
        raise UserError(
            f"The model has no input {unknown[0][:100]}."
            if unknown
            else f"The input {missing[0]} is missing.",
            why=f"Its inputs are {', '.join(names)}.",
        )
    for spec in specs:
        tensor = given[spec.name]
        if not spec.accepts(tensor):
            raise UserError(
                f"The input {spec.name} does not fit.",
                why=f"The model wants {spec}, got {tensor.dtype.name}{list(tensor.shape)}.",
            )
        _require_bounded(spec, tensor)
    return tuple(given[name] for name in names)


def _require_bounded(spec: TensorSpec, tensor: Tensor) -> None:
    """A model's own axes are as long as it says; those that it leaves open need a bound."""
    if spec.shape and isinstance(spec.shape[0], str) and tensor.shape[0] > MAX_BATCH:
        raise UserError(
            f"The input {spec.name} is too large.",
            why=f"Its first axis is {tensor.shape[0]}, allowed are {MAX_BATCH}.",
            fix="Send several requests.",
        )
    if any(isinstance(axis, str) for axis in spec.shape) and tensor.size > MAX_FREE_ELEMENTS:
        raise UserError(
            f"The input {spec.name} is too large.",
            why=f"It has {tensor.size:,} elements, allowed are {MAX_FREE_ELEMENTS:,}.",
        )


def _wanted(specs: Sequence[TensorSpec], request: _Request) -> tuple[tuple[int, bool], ...]:
    default = request.parameters.get("binary_data_output") is True
    if not request.outputs:
        return tuple((index, default) for index in range(len(specs)))
    names = [spec.name for spec in specs]
    found = []
    for output in request.outputs:
        if output.name not in names:
            raise UserError(
                f"The model has no output {output.name[:100]}.",
                why=f"Its outputs are {', '.join(names)}.",
            )
        for parameter in ("classification", "shared_memory_region"):
            if parameter in output.parameters:
                raise UserError(f"The output parameter {parameter} is not supported.")
        found.append(
            (names.index(output.name), output.parameters.get("binary_data", default) is True)
        )
    return tuple(found)


def _numbers(name: str, output: Tensor) -> list[Any]:
    if output.dtype.kind == "f" and (output.dtype == np.float16 or not np.isfinite(output).all()):
        what = "FP16" if output.dtype == np.float16 else "NaN or infinity"
        raise UserError(
            f"The output {name} cannot be written in JSON.",
            why=f"It has {what}.",
            fix="Ask for bytes: binary_data.",
        )
    numbers: list[Any] = output.reshape(-1).tolist()
    return numbers
