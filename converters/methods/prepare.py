"""Prepare a model for quantization: the graph that will run, with names and shapes.

What inference folds anyway (batch norms, constants) is folded first, so that quantization
sees it; every node gets a name of its own, which rules match.
"""

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import onnx
import onnxruntime as ort

from converters.methods.refusal import refusing
from converters.methods.sessions import BASIC, options_of

_LEAST_OPSET = 13  # the first with a scale per channel


class Prepared(msgspec.Struct, frozen=True):
    """A model as it will be quantized: an `onnx.ModelProto` that no method changes."""

    proto: Any


def prepare(model: bytes) -> Prepared:
    """Return the model as it will be quantized: folded, shapes inferred, nodes named.

    Raises:
        NotQuantizableError: onnxruntime or onnx cannot do that to this model.
    """
    with refusing("prepared"):
        return Prepared(_prepared(model))


def copy_of(proto: Any) -> Any:
    """A model of its own with the same content."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    return made


def float_tensors(proto: Any) -> list[str]:
    """The names of all float32 tensors that are no constants, sorted."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    infos = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
    names = {i.name for i in infos if i.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return sorted(names - constants)


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


def _folded(model: bytes) -> bytes:
    options = options_of(BASIC)
    with tempfile.TemporaryDirectory(prefix="edgeml-") as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return path.read_bytes()
