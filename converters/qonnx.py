"""QONNX in standard ONNX: what `Quant` says, said by operators that onnxruntime executes.

QONNX (Brevitas, QKeras and HAWQ export it) has an operator of its own that quantizes to any width
and is float on both sides. A pair of `QuantizeLinear` and `DequantizeLinear` with a `Clip` of the
codes between says the same for up to 8 bits; Brevitas calls that QCDQ. Constants become codes.

https://github.com/fastmachinelearning/qonnx/blob/main/docs/qonnx-custom-ops/quant_op.md
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from onnx import helper, numpy_helper

from edgeml.errors import ModelError

_QUANT = {"Quant", "IntQuant"}
_ROUNDINGS = {"ROUND", "HALF_EVEN", "HALF_UP"}  # ties are the only difference
_OPSET = 13  # the first whose QuantizeLinear knows scales by channel
_CODE_BITS = 8


def has_quant(model: Any) -> bool:
    """Whether a model holds QONNX's `Quant`."""
    return any(_is_quant(node) for node in model.graph.node)


def lowered(model: Any) -> Any:
    """The model with each `Quant` as a standard pair, of the operator set 13 or newer.

    Raises:
        ModelError: a `Quant` has computed scales, more than 8 bits, or rounds otherwise.
    """
    model = _of_opset(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    constants |= {
        node.output[0]: numpy_helper.to_array(a.t)
        for node in model.graph.node
        if node.op_type == "Constant"
        for a in node.attribute
        if a.name == "value"
    }
    nodes: list[Any] = []
    made: dict[str, np.ndarray] = {}
    for node in model.graph.node:
        nodes += _pair(node, constants, made) if _is_quant(node) else [node]
    used = {name for node in nodes for name in node.input} | {o.name for o in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    fed = [v for v in model.graph.input if v.name in used or v.name not in constants]
    del model.graph.node[:], model.graph.initializer[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in made.items())
    model.graph.input.extend(fed)
    standard = [entry for entry in model.opset_import if entry.domain in {"", "ai.onnx"}]
    domains = {node.domain for node in nodes}
    others = [entry for entry in model.opset_import if entry.domain in domains - {"", "ai.onnx"}]
    del model.opset_import[:]
    model.opset_import.extend([*standard, *others])
    return model


def _is_quant(node: Any) -> bool:
    return node.op_type in _QUANT and node.domain not in {"", "ai.onnx"}


def _of_opset(model: Any) -> Any:
    """A copy of the operator set that pairs need; the converter knows standard operators alone."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    opset = max((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), default=1)
    if opset >= _OPSET:
        return copied
    given = {node.output[0]: node for node in model.graph.node if _is_quant(node)}
    for node in copied.graph.node:
        if node.output[0] in given:
            # It keeps all operands, so that none is dropped as unused.
            node.CopyFrom(helper.make_node("Sum", given[node.output[0]].input, node.output))
    try:
        copied = onnx.version_converter.convert_version(copied, _OPSET)
    except Exception as error:  # noqa: BLE001 -- the converter's errors have no better class
        raise ModelError(
            f"The model cannot be brought from operator set {opset} to {_OPSET}.",
            why=f"{(str(error).strip().splitlines() or ['it says nothing'])[0]}.",
            fix=f"Export it with operator set {_OPSET} or newer.",
        ) from None
    for node in copied.graph.node:
        if quant := given.get(node.output[0]):
            operands = list(node.input)
            node.CopyFrom(quant)
            node.input[:] = operands
    return copied


def _pair(
    node: Any, constants: dict[str, np.ndarray], made: dict[str, np.ndarray]
) -> Iterator[Any]:
    """The nodes in place of a `Quant`; their constants are added to `made`."""
    if unknown := [name for name in node.input[1:4] if name not in constants]:
        raise _refused(node, f"{unknown[0]} is computed, scale, zero point and bits are constants")
    scale, zero, width = (constants[name] for name in node.input[1:4])
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    rounding = given.get("rounding_mode", b"ROUND").decode()
    if rounding not in _ROUNDINGS:
        raise _refused(node, f"it rounds by {rounding}")
    if width.size != 1 or width.item() != int(width.item()) or width.item() < 2:  # noqa: PLR2004
        raise _refused(node, f"it has {np.ravel(width).tolist()} bits, 2 or more are known")
    bits, signed = int(width.item()), bool(given.get("signed", 1))
    low, high = levels(bits, signed=signed, narrow=bool(given.get("narrow", 0)))
    name, value = node.output[0], constants.get(node.input[0])
    codes = None if value is None else np.clip(np.round(value / scale + zero), low, high)
    if bits > _CODE_BITS:
        if codes is None:
            raise _refused(node, f"it has {bits} bits, supported are 2 to {_CODE_BITS}")
        made[name] = ((codes - zero) * scale).astype(np.float32)
        return
    kind = np.int8 if signed else np.uint8
    axis, by_axis = _axis(node, scale)
    made[f"{name}/scale"] = by_axis.astype(np.float32)
    made[f"{name}/zero"] = (
        np.zeros(by_axis.shape) + zero.reshape(() if zero.size == 1 else -1)
    ).astype(kind)
    entered = f"{name}/codes"
    operands = [f"{name}/scale", f"{name}/zero"]
    if codes is not None:
        made[entered] = codes.astype(kind)
    else:
        yield helper.make_node(
            "QuantizeLinear", [node.input[0], *operands], [entered], node.name, axis=axis
        )
        if (low, high) != (np.iinfo(kind).min, np.iinfo(kind).max):
            made[f"{name}/low"], made[f"{name}/high"] = np.array(low, kind), np.array(high, kind)
            bounds = [entered, f"{name}/low", f"{name}/high"]
            entered = f"{name}/clipped"
            yield helper.make_node("Clip", bounds, [entered], f"{node.name}/clip")
    yield helper.make_node("DequantizeLinear", [entered, *operands], [name], axis=axis)


def levels(bits: int, *, signed: bool, narrow: bool) -> tuple[int, int]:
    """The least and the largest code of a `Quant`.

    >>> levels(4, signed=True, narrow=True), levels(2, signed=False, narrow=False)
    ((-7, 7), (0, 3))
    """
    if signed:
        return -(1 << (bits - 1)) + narrow, (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1 - narrow


def _axis(node: Any, scale: np.ndarray) -> tuple[int, np.ndarray]:
    """The axis along which scales differ, and the scales along it: a scalar where they do not."""
    long = [axis for axis, size in enumerate(scale.shape) if size > 1]
    if not long:
        return 0, scale.reshape(())
    if len(long) > 1:
        raise _refused(node, f"its scales have the shape {scale.shape}, supported is one axis")
    return long[0], scale.ravel()


def _refused(node: Any, why: str) -> ModelError:
    named = f" ({node.name})" if node.name else ""
    return ModelError(
        f"The operator {node.op_type}{named} cannot be read.",
        why=f"{why[0].upper()}{why[1:]}.",
        fix="Export the model with constant scales of 2 to 8 bits, or give the float model.",
    )
