"""A float `.tflite` model, loaded and described as an ONNX one is.

LiteRT itself checks the file first; only then is its content read.
"""

import hashlib
import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converters.model import FloatModel
from edgeml.errors import ModelError
from hardware.runtimes import SessionOptions, open_session, runtimes
from hardware.runtimes.formats import TFLITE
from hardware.runtimes.litert import BUILTIN

_PRODUCTS = {"BATCH_MATMUL", "FULLY_CONNECTED"}
_FLOATS = {"FLOAT32", "FLOAT64"}
# Numbers that stand for themselves, as shapes and indices do.
_PLAIN = {"BOOL", "INT32", "INT64", "STRING", "UINT32", "UINT64"}


def load_tflite(path: Path) -> FloatModel:
    """Load a float `.tflite` file.

    Raises:
        ModelError: there is no such file, it is malformed, quantized already, has operators
            that LiteRT has not, or LiteRT is not installed.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"No model file {path}.",
            why="The path does not exist.",
            fix="Give the path of an ONNX or a .tflite file.",
        ) from None
    except OSError as error:
        raise ModelError(f"The model {path} cannot be read.", why=f"{error.strerror}.") from None
    if runtimes()["litert"].info() is None:
        raise ModelError(
            f"The model {path} cannot be used here.",
            why="It is a .tflite file, and the runtime litert is not installed.",
            fix="Install it: pip install 'edgeml[litert]'.",
        )
    session = open_session("litert", path, SessionOptions(provider=BUILTIN))  # in fewest words
    inputs, outputs = session.inputs, session.outputs
    session.close()
    schema, model = _parse(path, data)
    _refuse_quantized(path, schema, model)
    operators = Counter(name for _, name, _ in _operators(schema, model))
    sizes = {id(t): _size(t) for graph in model.subgraphs for t in _constants(graph, model)}
    return FloatModel(
        path=path,
        data=data,
        digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
        opset=0,
        inputs=inputs,
        outputs=outputs,
        operators=dict(sorted(operators.items())),
        parameters=sum(sizes.values()),
        matrix_share=_matrix_share(schema, model, sizes),
        has_depthwise="DEPTHWISE_CONV_2D" in operators,
        format=TFLITE,
    )


def _parse(path: Path, data: bytes) -> tuple[Any, Any]:
    try:
        schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError:  # tflite-runtime, which runs files and cannot read them
        raise ModelError(
            f"The model {path} cannot be used here.",
            why="The package ai-edge-litert, which reads .tflite files, is not installed.",
            fix="Install it: pip install 'edgeml[litert]'.",
        ) from None
    return schema, schema.ModelT.InitFromPackedBuf(data, 0)


def _refuse_quantized(path: Path, schema: Any, model: Any) -> None:
    kinds = _names(schema.TensorType)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            kind, scales = kinds[tensor.type], getattr(tensor.quantization, "scale", None)
            is_scaled = scales is not None and len(scales)
            if kind in _FLOATS or (kind in _PLAIN and not is_scaled):
                continue
            if not (is_scaled or kind.startswith(("FLOAT", "BFLOAT"))):
                continue  # bytes that stand for themselves, as pixels do
            raise ModelError(
                f"The model {path} is quantized already.",
                why=f"Its tensor {_text(tensor.name)} is {kind.lower()}.",
                fix="Give the float model that it was made from.",
            )


def _matrix_share(schema: Any, model: Any, sizes: dict[int, int]) -> float:
    held = sum(
        sizes.get(id(graph.tensors[index]), 0)
        for graph, name, operator in _operators(schema, model)
        if name in _PRODUCTS
        for index in set(operator.inputs)
        if index >= 0
    )
    return held / max(1, sum(sizes.values()))


def _operators(schema: Any, model: Any) -> Iterator[tuple[Any, str, Any]]:
    """Each operator with its graph and its name."""
    names = _names(schema.BuiltinOperator)
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            yield graph, _text(code.customCode) or names[number], operator


def _constants(graph: Any, model: Any) -> Iterator[Any]:
    for tensor in graph.tensors:
        if model.buffers[tensor.buffer].data is not None:
            yield tensor


def _size(tensor: Any) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64)) if tensor.shape is not None else 1


def _names(numbers: Any) -> dict[int, str]:
    return {value: name for name, value in vars(numbers).items() if not name.startswith("_")}


def _text(name: bytes | str | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name or ""
