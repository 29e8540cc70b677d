"""Prepare a model for quantization: the graph that will run, with names and shapes.

What inference folds anyway (batch norms, constants) is folded first, so that quantization
sees it; what is left over of shape arithmetic and doubled nodes is simplified away (onnxslim);
every node gets a name of its own, which rules match. Each of the two is checked on samples: a
simplification that fails or changes outputs is left out, and said.
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort

from converters.methods.quiet import quiet
from converters.methods.refusal import NotQuantizableError, refusing
from converters.methods.sessions import BASIC, open_bytes, open_model, options_of

_LEAST_OPSET = 13  # the first with a scale per channel
_EQUAL_WITHIN = 1e-3  # of the outputs' range: what another order of float sums may change

Outputs = Sequence[np.ndarray]


class Prepared(msgspec.Struct, frozen=True):
    """A model as it will be quantized: an `onnx.ModelProto` that no method changes.

    `notes` say what could not be done to it.
    """

    proto: Any
    notes: tuple[str, ...] = ()


def prepare(model: bytes, feeds: Iterable[Sequence[np.ndarray]] = ()) -> Prepared:
    """Return the model as it will be quantized: folded, simplified, shapes inferred, nodes named.

    Args:
        model: an ONNX file's bytes.
        feeds: samples, each a tensor for every input, on which outputs must stay equal; kept in
            memory. Without any the model is not simplified, since nothing could tell whether
            that went well.

    Raises:
        NotQuantizableError: onnxruntime or onnx cannot do that to this model, or folding
            changed what it computes.
    """
    with refusing("prepared"):
        folded = _folded(model)
        samples = [[np.array(tensor) for tensor in feed] for feed in feeds]
        wanted = _run(open_bytes(model), samples)
        changed = _difference(wanted, _run(open_model(folded), samples))
    if not changed <= _EQUAL_WITHIN:
        raise NotQuantizableError(
            "Preparing the model for quantization changed what it computes.",
            why=f"Outputs differ by {100 * changed:.2g} % of their range.",
        )
    lean, note = _simplified(folded, samples, wanted) if samples else (folded, "")
    with refusing("prepared"):
        return Prepared(_described(lean), (note,) if note else ())


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


def _folded(model: bytes) -> Any:
    """What onnxruntime folds before it runs a model, in operators of onnx alone."""
    options = options_of(BASIC)
    with tempfile.TemporaryDirectory(prefix="edgeml-") as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        proto = onnx.load_model_from_string(path.read_bytes())
    used = {node.domain for node in proto.graph.node} | {""}
    kept = [o for o in proto.opset_import if o.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    if next(o.version for o in kept if o.domain == "") < _LEAST_OPSET:
        proto = onnx.version_converter.convert_version(proto, _LEAST_OPSET)
    return proto


def _simplified(
    proto: Any, samples: Sequence[Sequence[np.ndarray]], wanted: Sequence[Outputs]
) -> tuple[Any, str]:
    """The model simplified, or as it is and why."""
    import onnxslim

    try:
        with quiet():
            made = onnxslim.slim(copy_of(proto))
            if len(made.graph.input) != len(proto.graph.input):
                raise ValueError("it dropped an input")
            changed = _difference(wanted, _run(open_model(made), samples))
    except Exception as error:  # noqa: BLE001 -- whatever a graph does to it, there is another
        return proto, f"The model is not simplified: onnxslim failed ({_first_line(error)})."
    if changed <= _EQUAL_WITHIN:
        return made, ""
    said = f"onnxslim changed its outputs by {100 * changed:.2g} % of their range"
    return proto, f"The model is not simplified: {said}."


def _described(proto: Any) -> Any:
    """With a name for each node and the shapes of its tensors."""
    del proto.graph.value_info[:]  # folding leaves the shapes of tensors that are gone
    names: set[str] = set()
    for index, node in enumerate(proto.graph.node):
        if not node.name or node.name in names:
            node.name = f"{node.op_type}_{index}"
        names.add(node.name)
    return onnx.shape_inference.infer_shapes(proto)


def _run(session: Any, feeds: Sequence[Sequence[np.ndarray]]) -> list[Outputs]:
    names = [value.name for value in session.get_inputs()]
    return [session.run(None, dict(zip(names, feed, strict=True))) for feed in feeds]


def _difference(wanted: Sequence[Outputs], given: Sequence[Outputs]) -> float:
    """The largest difference of a float output, as a share of its range over all samples."""
    worst = 0.0
    for wants, gots in zip(zip(*wanted, strict=True), zip(*given, strict=True), strict=True):
        if any(want.shape != got.shape for want, got in zip(wants, gots, strict=True)):
            return float("inf")
        want, got = (np.concatenate([part.ravel() for part in parts]) for parts in (wants, gots))
        if want.dtype.kind != "f" or not want.size:
            continue
        scale = float(np.ptp(want)) or float(np.abs(want).max()) or 1.0
        difference = float(np.abs(want - got).max()) / scale
        worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    return worst


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
