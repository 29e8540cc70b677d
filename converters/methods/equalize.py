"""Cross-layer equalisation: channels that share a scale get ranges of one size.

Between two convolutions with nothing but a ReLU, a channel can be divided by any positive
number and the weights that read it multiplied by the same: the model computes what it did
(M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
2019). With one scale for all of a layer's weights, the two layers' weight ranges are made
equal. With a scale a channel, the weights before are free, and the activations between, which
share a scale, are balanced against the weights behind.
"""

from typing import Any

import msgspec
import numpy as np
import onnx

from converters.methods.calibrate import Feeds
from converters.methods.graph import attributes, constants, drop_unused_constants, readers
from converters.methods.prepare import Prepared, copy_of
from converters.methods.refusal import NotQuantizableError, refusing
from converters.methods.sessions import open_model

_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu"})  # f(a x) = a f(x) for a > 0
_LARGEST = 32.0  # scales stay within 1/32 and 32: beyond them rounding in float shows
_ROUNDS = 20
_SETTLED = 0.01


class _Pair(msgspec.Struct, kw_only=True):
    """Two convolutions; arrays are changed in place, then written back.

    `first` has the shape (channels, ...), `second` (groups, outputs / groups,
    channels / groups, ...).
    """

    before: Any
    after: Any
    between: str
    first: np.ndarray
    bias: np.ndarray | None
    second: np.ndarray

    def divide(self, scales: np.ndarray) -> None:
        """Divide the channels between the two by `scales`, of shape (channels,)."""
        self.first /= scales.reshape(-1, *[1] * (self.first.ndim - 1))
        if self.bias is not None:
            self.bias /= scales
        groups, _, channels = self.second.shape[:3]
        self.second *= scales.reshape(groups, 1, channels, *[1] * (self.second.ndim - 3))

    def read_by(self) -> np.ndarray:
        """The largest weight that reads each channel, of shape (channels,)."""
        axes = (1, *range(3, self.second.ndim))
        return np.asarray(np.abs(self.second).max(axes).reshape(-1))

    def relative(self) -> np.ndarray:
        """The same, with each output's weights relative to the largest of them."""
        inside = tuple(range(2, self.second.ndim))
        largest = np.abs(self.second).max(inside, keepdims=True)
        weights = np.abs(self.second) / np.where(largest > 0, largest, 1)
        return np.asarray(weights.max((1, *range(3, self.second.ndim))).reshape(-1))


def equalize(prepared: Prepared, feeds: Feeds, *, per_channel: bool) -> Prepared:
    """The same model with channels of more equal ranges; it must be observed anew.

    Args:
        prepared: the model.
        feeds: gives samples; one pass is made if `per_channel`.
        per_channel: whether each output channel of the weights will have its own scale.

    Raises:
        NotQuantizableError: no two convolutions follow one another as this needs it.
    """
    with refusing("equalised"):
        proto = copy_of(prepared.proto)
        pairs = _pairs(proto.graph)
        if not pairs:
            raise NotQuantizableError(
                "Equalisation changes nothing in this model.",
                why="No two convolutions have but a ReLU in between.",
            )
        if per_channel:
            _balance_activations(prepared, pairs, feeds)
        else:
            _balance_weights(pairs)
        _write(proto.graph, pairs)
    return Prepared(proto)


def _pairs(graph: Any) -> list[_Pair]:
    known, read_by = constants(graph), readers(graph)
    outputs = {o.name for o in graph.output}
    arrays: dict[str, np.ndarray] = {}  # shared by pairs: a layer may be first and second
    for name in {n.input[1] for n in graph.node if n.op_type == "Conv" and n.input[1] in known}:
        if len(read_by[name]) == 1:
            arrays[name] = onnx.numpy_helper.to_array(known[name]).astype(np.float64)
    found = []
    for before in graph.node:
        if before.op_type != "Conv" or before.input[1] not in arrays:
            continue
        bias = before.input[2] if len(before.input) > 2 else ""  # noqa: PLR2004
        if bias and (bias not in known or len(read_by[bias]) > 1):
            continue
        between = before.output[0]
        after = _only_reader(between, read_by, outputs)
        if after is not None and after.op_type in _HOMOGENEOUS:
            between = after.output[0]
            after = _only_reader(between, read_by, outputs)
        if after is None or after.op_type != "Conv" or after.input[1] not in arrays:
            continue
        if after.input[0] != between:
            continue
        groups = int(attributes(after).get("group", 1))
        weights = arrays[after.input[1]]
        found.append(
            _Pair(
                before=before,
                after=after,
                between=between,
                first=arrays[before.input[1]],
                bias=onnx.numpy_helper.to_array(known[bias]).astype(np.float64) if bias else None,
                second=weights.reshape(groups, -1, *weights.shape[1:]),
            )
        )
    return found


def _only_reader(tensor: str, read_by: dict[str, list[Any]], outputs: set[str]) -> Any:
    found = read_by.get(tensor, [])
    return found[0] if len(found) == 1 and tensor not in outputs else None


def _balance_weights(pairs: list[_Pair]) -> None:
    for _ in range(_ROUNDS):
        moved = 0.0
        for pair in pairs:
            axes = tuple(range(1, pair.first.ndim))
            scales = _scales(np.abs(pair.first).max(axes), pair.read_by())
            pair.divide(scales)
            moved = max(moved, float(np.abs(np.log(scales)).max()))
        if moved < _SETTLED:
            break


def _balance_activations(prepared: Prepared, pairs: list[_Pair], feeds: Feeds) -> None:
    largest = _largest_activations(prepared, [pair.between for pair in pairs], feeds)
    for pair, values in zip(pairs, largest, strict=True):
        alone = pair.second.shape[2] == 1  # depthwise: its weights are free as well
        behind = np.where(values > 0, 1 / np.where(values > 0, values, 1), 0)
        pair.divide(_scales(values, behind if alone else pair.relative()))


def _scales(before: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """What makes both proportional, around 1; 1 for channels without use."""
    used = (before > 0) & (behind > 0)
    logs = np.log(np.where(used, before, 1) / np.where(used, behind, 1)) / 2
    logs = np.where(used, logs - logs[used].mean() if used.any() else 0, 0)
    return np.asarray(np.clip(np.exp(logs), 1 / _LARGEST, _LARGEST))


def _largest_activations(prepared: Prepared, tensors: list[str], feeds: Feeds) -> list[np.ndarray]:
    """The largest absolute value of each channel of these tensors, shape (channels,) each."""
    observed = copy_of(prepared.proto)
    del observed.graph.output[:]
    for index, tensor in enumerate(tensors):
        size, largest = f"edgeml_size_{index}", f"edgeml_largest_{index}"
        observed.graph.node.extend(
            [
                onnx.helper.make_node("Abs", [tensor], [size], name=size),
                onnx.helper.make_node("GlobalMaxPool", [size], [largest], name=largest),
            ]
        )
        observed.graph.output.append(
            onnx.helper.make_tensor_value_info(largest, onnx.TensorProto.FLOAT, None)
        )
    session = open_model(observed)
    names = [i.name for i in session.get_inputs()]
    found: list[np.ndarray] | None = None
    for feed in feeds():
        outputs = session.run(None, dict(zip(names, feed, strict=True)))
        seen = [o.max(axis=0).reshape(-1).astype(np.float64) for o in outputs]
        found = seen if found is None else list(map(np.maximum, found, seen))
    return found or [np.zeros(0)] * len(tensors)


def _write(graph: Any, pairs: list[_Pair]) -> None:
    known = constants(graph)
    for pair in pairs:
        for node, array in ((pair.before, pair.first), (pair.after, pair.second)):
            tensor = known[node.input[1]]
            values = array.reshape(tuple(tensor.dims)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        if pair.bias is not None:
            tensor = known[pair.before.input[2]]
            values = pair.bias.astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    drop_unused_constants(graph)
