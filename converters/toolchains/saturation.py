"""The arithmetic of x86-64 without VNNI, in numpy: where a u8 x s8 file loses sums there.

Without VNNI, onnxruntime multiplies unsigned activations with signed weights by `vpmaddubsw`,
which adds two neighbouring products and saturates the sum at 16 bits. Here the same pairs are
formed (along the reduction, in the order kernel row, kernel column, channel) for every layer
whose weights let a pair exceed 16 bits. What is found is a proxy (`cpu-proxy`): each layer is
given the exact inputs, so losses do not add up from layer to layer as they do on such a
processor; `converters.toolchains.emulation` runs the file itself.

Source: the Intel intrinsics guide, `_mm256_maddubs_epi16`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cloud_sync.evidence import Verification
from edgeml.errors import ModelError
from hardware.runtimes.formats import ONNX, format_of

VERIFICATION = Verification.CPU_PROXY

_LOWEST, _HIGHEST = -(1 << 15), (1 << 15) - 1
_LARGEST_U8 = 255
_POSITIONS = 256
_SHOWN = 8
# Of operators that take integers as they are: where data and weight stand among the inputs.
_INTEGER = {
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
    "QLinearConv": (0, 3),
}
_FLOAT = ("Conv", "MatMul", "Gemm")

_Ints = NDArray[np.int64]


class RiskyLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer whose weights let a pair of products exceed 16 bits.

    `largest_pair` is the largest magnitude of such a sum with activations of 255, `channels`
    how many output channels have one.
    """

    node: str
    operator: str
    largest_pair: int
    channels: int


class Saturation(msgspec.Struct, frozen=True, kw_only=True):
    """What saturation does to a layer on samples.

    `share` of its outputs have a saturated pair; `loss` is the root mean square of what is lost
    over that of the exact sums (without zero points taken off).
    """

    node: str
    operator: str
    share: float
    loss: float


class SaturationEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is expected to lose on processors without VNNI, computed and not executed.

    `at_risk` layers can saturate whatever they are fed; `layers` are those that did on
    `samples`, the worst first.
    """

    at_risk: int
    samples: int
    layers: tuple[Saturation, ...] = ()
    verification: Verification = VERIFICATION

    @property
    def share(self) -> float:
        """The share of its outputs that saturation changes, in the layer hit worst."""
        return self.layers[0].share if self.layers else 0.0

    @property
    def loss(self) -> float:
        """What the layer hit worst loses, over its exact sums."""
        return self.layers[0].loss if self.layers else 0.0

    def __str__(self) -> str:
        said = f"Without VNNI {self.at_risk} layers of this file can saturate"
        if not self.layers:
            return f"{said}; none did on {self.samples} samples, computed with numpy."
        worst = self.layers[0]
        return (
            f"{said}, some did on {self.samples} samples, computed with numpy: worst "
            f"in {worst.node}, {100 * worst.share:.2g} % of its outputs, {100 * worst.loss:.2g} % "
            "of its sums are lost."
        )


class _Layer(msgspec.Struct, frozen=True):
    node: onnx.NodeProto
    data: str  # the uint8 tensor
    zero_point: int
    weight: _Ints  # [groups, outputs of a group, pairs, 2]

    @property
    def name(self) -> str:
        return self.node.name or self.node.output[0]


def risky_layers(model: onnx.ModelProto) -> tuple[RiskyLayer, ...]:
    """The layers that can saturate, whatever the samples, those with the largest sums first.

    Args:
        model: a quantized file: QDQ, QLinear or Integer operators.
    """
    found = []
    for layer in _layers(model):
        sums = _largest_sums(layer.weight)
        found.append(
            RiskyLayer(
                node=layer.name,
                operator=layer.node.op_type,
                largest_pair=int(sums.max()),
                channels=int((sums > _HIGHEST).sum()),
            )
        )
    return tuple(sorted(found, key=lambda layer: -layer.largest_pair))


def measure_saturation(
    model: onnx.ModelProto, samples: Iterable[Sequence[NDArray[Any]]]
) -> tuple[Saturation, ...]:
    """What saturates on samples, the layers hit most first; layers that cannot are left out.

    Args:
        model: a quantized file.
        samples: the inputs of each, with their batch axis, in the order of the model's inputs.
            Of each layer's outputs up to 256 positions of a sample are computed.

    Raises:
        ModelError: the model does not run on a sample.
    """
    layers = _layers(model)
    if not layers:
        return ()
    session = _session_of(model, sorted({layer.data for layer in layers}))
    names = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    counts = {layer.name: np.zeros(4) for layer in layers}
    rng = np.random.default_rng(0)
    for sample in samples:
        try:
            tensors = session.run(outputs, dict(zip(names, sample, strict=True)))
        except Exception as error:
            why = str(error).strip().splitlines()[0]
            raise ModelError("The model does not run on a sample.", why=why) from error
        values = dict(zip(outputs, tensors, strict=True))
        for layer in layers:
            counts[layer.name] += _count(layer, values[layer.data], rng)
    found = [
        Saturation(
            node=layer.name,
            operator=layer.node.op_type,
            share=float(hit / max(total, 1)),
            loss=float(np.sqrt(lost / exact)) if exact else 0.0,
        )
        for layer in layers
        for total, hit, lost, exact in [counts[layer.name]]
    ]
    return tuple(sorted(found, key=lambda layer: (-layer.loss, -layer.share)))


def saturation_evidence(
    path: Path, samples: Sequence[Sequence[NDArray[Any]]]
) -> SaturationEvidence | None:
    """What a quantized ONNX file is expected to lose without VNNI; None where it cannot saturate.

    Args:
        path: the file; of another format, nothing is known.
        samples: see `measure_saturation`.

    Raises:
        ModelError: the model does not run on a sample.
    """
    if format_of(path) != ONNX:
        return None
    model = onnx.load(path)
    at_risk = len(risky_layers(model))
    if not at_risk:
        return None
    hit = [layer for layer in measure_saturation(model, samples) if layer.share]
    return SaturationEvidence(at_risk=at_risk, samples=len(samples), layers=tuple(hit[:_SHOWN]))


def saturating_dot(data: _Ints, weight: _Ints) -> tuple[_Ints, _Ints]:
    """Sums of products as `vpmaddubsw` forms them, and the exact ones.

    Args:
        data: unsigned 8-bit values, [rows, pairs, 2].
        weight: signed 8-bit values, [outputs, pairs, 2].

    Returns:
        Saturating and exact sums, each [rows, outputs].
    """
    saturating = np.zeros((len(data), len(weight)), np.int64)
    exact = np.zeros_like(saturating)
    for index, row in enumerate(weight):
        pairs = (data * row).sum(axis=2)
        exact[:, index] = pairs.sum(axis=1)
        saturating[:, index] = pairs.clip(_LOWEST, _HIGHEST).sum(axis=1)
    return saturating, exact


def _count(layer: _Layer, data: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float64]:
    """Outputs computed, outputs hit, sum of squares lost, sum of squares in all."""
    counts = np.zeros(4)
    for rows, weight in zip(_rows(layer, data), layer.weight, strict=True):
        chosen = rows
        if len(rows) > _POSITIONS:
            chosen = rows[rng.choice(len(rows), _POSITIONS, replace=False)]
        saturating, exact = saturating_dot(_pairs(chosen), weight)
        lost = (exact - saturating).astype(np.float64)
        counts += [lost.size, np.count_nonzero(lost), (lost**2).sum(), (exact**2.0).sum()]
    return counts


def _layers(model: onnx.ModelProto) -> list[_Layer]:
    """The layers of u8 data and s8 weights whose pairs can saturate."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    dequantizers = {
        node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    found = []
    for node in model.graph.node:
        if node.op_type in _FLOAT:
            sources = [dequantizers.get(name) for name in node.input[:2]]
            if None in sources:
                continue
            data, weight = (source.input for source in sources if source)
            zero_point = constants.get(data[2]) if len(data) > 2 else None  # noqa: PLR2004
            if zero_point is None or zero_point.data_type != onnx.TensorProto.UINT8:
                continue
            data_name, weight_name = data[0], weight[0]
            offset = int(numpy_helper.to_array(zero_point).flat[0])
        elif node.op_type in _INTEGER:
            data_at, weight_at = _INTEGER[node.op_type]
            data_name, weight_name, offset = node.input[data_at], node.input[weight_at], 0
        else:
            continue
        tensor = constants.get(weight_name)
        if tensor is None or tensor.data_type != onnx.TensorProto.INT8:
            continue
        packed = _packed(node, numpy_helper.to_array(tensor).astype(np.int64))
        if packed is not None and _largest_sums(packed).max() > _HIGHEST:
            found.append(_Layer(node, data_name, offset, packed))
    return found


def _packed(node: onnx.NodeProto, weight: _Ints) -> _Ints | None:
    """The weight as [groups, outputs of a group, pairs, 2]; None where no pairs are formed."""
    if "Conv" not in node.op_type:
        if weight.ndim != 2:  # noqa: PLR2004 -- a matrix
            return None
        matrix = weight if _attribute(node, "transB", 0) else weight.T
        return _pairs(matrix)[None]
    groups = _attribute(node, "group", 1)
    if weight.shape[1] == 1 and len(weight) == groups > 1:
        return None  # the depthwise kernel widens to 16 bits first
    rows = np.moveaxis(weight, 1, -1).reshape(len(weight), -1)
    return _pairs(rows).reshape(groups, len(weight) // groups, -1, 2)


def _pairs(rows: _Ints) -> _Ints:
    """[n, k] as [n, k / 2, 2], a zero added where k is odd."""
    return np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).reshape(len(rows), -1, 2)


def _largest_sums(weight: _Ints) -> _Ints:
    """Of each output channel the largest magnitude of a pair's sum, with activations of 255."""
    up = weight.clip(min=0).sum(axis=-1).max(axis=-1)
    down = (-weight).clip(min=0).sum(axis=-1).max(axis=-1)
    largest: _Ints = _LARGEST_U8 * np.maximum(up, down).reshape(-1)
    return largest


def _rows(layer: _Layer, data: NDArray[Any]) -> list[_Ints]:
    """Of each group the data of every output position, [positions, k]."""
    values = data.astype(np.int64)
    if "Conv" not in layer.node.op_type:
        if _attribute(layer.node, "transA", 0):
            values = values.T
        return [values.reshape(-1, values.shape[-1])]
    kernel = tuple(_kernel(layer))
    axes = len(kernel)
    strides = _attribute(layer.node, "strides", [1] * axes)
    dilations = _attribute(layer.node, "dilations", [1] * axes)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _padding(layer.node, values.shape[2:], reach, strides)
    padded = np.pad(values, [(0, 0), (0, 0), *pads], constant_values=layer.zero_point)
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, reach, axis=tuple(range(2, 2 + axes))
    )
    steps = [slice(None, None, s) for s in strides] + [slice(None, None, d) for d in dilations]
    windows = windows[(slice(None), slice(None), *steps)]
    # [batch, channel, positions..., kernel...] to [batch, positions..., kernel..., channel]
    groups = np.split(windows, len(layer.weight), axis=1)
    return [
        np.moveaxis(group, 1, -1).reshape(-1, int(np.prod(kernel)) * group.shape[1])
        for group in groups
    ]


def _kernel(layer: _Layer) -> list[int]:
    shape: list[int] = _attribute(layer.node, "kernel_shape", [])
    if not shape:
        raise ModelError(
            f"The convolution {layer.name} has no kernel_shape.",
            fix="Run shape inference or a simplifier on the model first.",
        )
    return shape


def _padding(
    node: onnx.NodeProto, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    mode = _attribute(node, "auto_pad", b"NOTSET")
    if mode in {b"SAME_UPPER", b"SAME_LOWER"}:
        found = []
        for size, needs, stride in zip(sizes, reach, strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + needs - size, 0)
            small, large = total // 2, total - total // 2
            found.append((small, large) if mode == b"SAME_UPPER" else (large, small))
        return found
    pads = _attribute(node, "pads", [0] * 2 * len(sizes))
    return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _session_of(model: onnx.ModelProto, names: Sequence[str]) -> Any:
    """A session that gives these tensors, unoptimised, so that sums are exact."""
    import onnxruntime as ort

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for name in names:
        watched.graph.output.append(
            helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None)
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(watched.SerializeToString(), options)
