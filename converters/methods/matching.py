"""Match a quantized model's tensors with the float model's, and run both as one graph.

Quantizers keep the names of nodes and tensors, and put a pair of QuantizeLinear and
DequantizeLinear behind a tensor that is rounded. Both models are written into one graph that
answers with sums over tensors, so that comparing them holds no activation.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import onnx

from converters.methods.graph import producers, readers
from converters.methods.prepare import Prepared, copy_of, float_tensors

MARK = "quantized/"  # before each name of the quantized model
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
_RENAMED = "_QuantizeLinear_Input"  # what onnxruntime appends to a rounded graph output


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the quantized model, and one tensor it makes in both models."""

    node: str
    operator: str
    exact: str
    rounded: str


def merge(prepared: Prepared, quantized: bytes, *, isolated: bool) -> tuple[Any, tuple[Pair, ...]]:
    """The two models in one graph without outputs, and the tensors to compare in it.

    Args:
        prepared: the float model.
        quantized: the model that was made from it.
        isolated: each quantized node reads the float model's tensors, rounded as it would
            round its own; its error is then its own. Otherwise errors run through the model.
    """
    other = onnx.load_model_from_string(quantized)
    inputs = {i.name for i in other.graph.input}
    exact = inputs | set(float_tensors(prepared.proto))
    pairs = tuple(_pairs(prepared, other, exact))
    merged = copy_of(prepared.proto)
    del merged.graph.output[:]
    _join_opsets(merged, other)
    for tensor in other.graph.initializer:
        merged.graph.initializer.add().CopyFrom(tensor)
        merged.graph.initializer[-1].name = MARK + tensor.name
    for node in other.graph.node:
        made = merged.graph.node.add()
        made.CopyFrom(node)
        made.name = MARK + node.name
        for index, name in enumerate(node.input):
            source = _base(name)
            from_float = name in inputs or (
                isolated and source in exact and node.op_type != "DequantizeLinear"
            )
            made.input[index] = source if from_float else MARK + name if name else ""
        for index, name in enumerate(node.output):
            made.output[index] = MARK + name if name else ""
    return merged, tuple(_add_rounding(merged, other, pairs)) if isolated else pairs


def _pairs(prepared: Prepared, other: Any, exact: set[str]) -> Iterator[Pair]:
    names = {node.name for node in prepared.proto.graph.node}
    read_by = readers(other.graph)
    for node in other.graph.node:
        if node.op_type in _ROUNDING or node.name not in names:
            continue
        for output in node.output:
            if _base(output) in exact:
                yield Pair(
                    node=node.name,
                    operator=node.op_type,
                    exact=_base(output),
                    rounded=MARK + (_restored(output, read_by) or output),
                )


def _restored(tensor: str, read_by: dict[str, list[Any]]) -> str | None:
    """The tensor after its rounding, where the quantized model rounds it."""
    for rounding in read_by.get(tensor, []):
        if rounding.op_type == "QuantizeLinear":
            for restore in read_by.get(rounding.output[0], []):
                if restore.op_type == "DequantizeLinear":
                    return str(restore.output[0])
    return None


def _add_rounding(merged: Any, other: Any, pairs: tuple[Pair, ...]) -> Iterator[Pair]:
    """Round each node's own output behind it, where the shared rounding reads the float model."""
    made_by = producers(other.graph)
    for index, pair in enumerate(pairs):
        restore = made_by.get(pair.rounded.removeprefix(MARK))
        if restore is None or restore.op_type != "DequantizeLinear":
            yield pair
            continue
        rounding = made_by[restore.input[0]]
        tensor = MARK + rounding.input[0]
        for operator, node in zip(_ROUNDING, (rounding, restore), strict=True):
            made = merged.graph.node.add()
            made.CopyFrom(node)
            made.name = f"edgeml_own_{operator}_{index}"
            made.input[0] = tensor
            for at in range(1, len(node.input)):
                made.input[at] = MARK + node.input[at]
            tensor = f"{made.name}_output"
            made.output[0] = tensor
        yield Pair(node=pair.node, operator=pair.operator, exact=pair.exact, rounded=tensor)


def _join_opsets(merged: Any, other: Any) -> None:
    known = {o.domain for o in merged.opset_import}
    merged.opset_import.extend(o for o in other.opset_import if o.domain not in known)


def _base(name: str) -> str:
    return name.removesuffix(_RENAMED)
