"""Half precision: weights and activations in float16, inputs and outputs in float32.

Written by onnxruntime's converter. Where a CPU has no float16 kernel for an operator,
onnxruntime computes it in float32 between casts: the file is half as large, not always faster.
"""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import onnxruntime as ort
from onnxruntime.quantization.onnx_model import ONNXModel

from converters.methods.choice import Choice
from converters.methods.graph import attributes, producers, read_names
from converters.methods.prepare import Prepared, copy_of
from converters.methods.refusal import NotQuantizableError, refusing
from converters.methods.result import Quantized

LARGEST = 65504.0  # the largest finite float16


def quantize_half(prepared: Prepared, choice: Choice) -> Quantized:
    """Make the chosen nodes compute in float16.

    Raises:
        NotQuantizableError: no constant became float16, or the converter stops at this model.
    """
    with refusing("put into half precision"):
        result = _converted(prepared, choice)
    halves = {t.name for t in result.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
    nodes = sum(1 for node in result.graph.node if halves.intersection(node.input))
    if not nodes:
        raise NotQuantizableError(
            "Half precision changes nothing in this model.",
            why="None of the chosen nodes has weights in float32.",
        )
    return Quantized(data=result.SerializeToString(deterministic=True), nodes=nodes)


def _converted(prepared: Prepared, choice: Choice) -> Any:
    chosen = set(choice.nodes)
    kept = sorted(n.name for n in prepared.proto.graph.node if n.name not in chosen)
    made = _converter().convert_float_to_float16(
        copy_of(prepared.proto), keep_io_types=True, node_block_list=kept
    )
    _skip_round_trips(made.graph)
    sorted_model = ONNXModel(made)
    sorted_model.topological_sort()
    del sorted_model.model.graph.value_info[:]  # some keep the type that they had
    return sorted_model.model


def _skip_round_trips(graph: Any) -> None:
    """Let nodes that stay in float32 hand on what they made.

    The converter puts a cast to float16 and one back between any two of them, through which
    what is beyond half precision does not come.
    """
    producer = producers(graph)
    for node in graph.node:
        for index, name in enumerate(node.input):
            back = producer.get(name)
            if back is None or not _casts_to(back, onnx.TensorProto.FLOAT):
                continue
            there = producer.get(back.input[0])
            if there is not None and _casts_to(there, onnx.TensorProto.FLOAT16):
                node.input[index] = there.input[0]
    for _ in range(2):  # the cast back, then the one that only it read
        used = read_names(graph) | {o.name for o in graph.output}
        for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in used]:
            graph.node.remove(node)


def _casts_to(node: Any, kind: int) -> bool:
    return node.op_type == "Cast" and attributes(node).get("to") == kind


@cache
def _converter() -> ModuleType:
    """The converter alone, without its package, which puts itself on `sys.path`."""
    path = Path(ort.__file__).parent / "transformers" / "float16.py"
    spec = importlib.util.spec_from_file_location("onnxruntime_float16", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
