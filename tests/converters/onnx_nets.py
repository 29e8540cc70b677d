"""Small ONNX nets of random weights, for tests of what computes them in integers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def net(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    shape: Sequence[int | str],
    *,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    output_type: int = TensorProto.FLOAT,
) -> bytes:
    """A model from `x`, [N, *shape], to `y`."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info(name, output_type, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def mixed_net(seed: int, *, size: int = 6, channels: int = 3) -> bytes:
    """Every kind of layer: strided, padded, depthwise and grouped convs, a residual, a join, pools.

    Its input is a picture of one channel, its output five logits.
    """
    rng = np.random.default_rng(seed)
    stride, pad = int(rng.integers(1, 3)), int(rng.integers(0, 2))
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w0", "b0"], ["a0"], "first", strides=[stride, 1], pads=[pad, 1, 1, 1]),
        make("BatchNormalization", ["a0", "g", "h", "m", "v"], ["a1"], "norm"),
        make("Relu", ["a1"], ["a2"], "relu"),
        make("Conv", ["a2", "wd"], ["a3"], "depthwise", group=channels, pads=[1, 1, 1, 1]),
        make("Clip", ["a3", "zero", "six"], ["a4"], "relu6"),
        make("Add", ["a2", "a4"], ["a5"], "residual"),
        make("HardSigmoid", ["a5"], ["a6"], "gate"),
        make("MaxPool", ["a5"], ["a7"], "largest", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        make("Concat", ["a6", "a7"], ["a8"], "join", axis=1),
        make("Conv", ["a8", "wg", "bg"], ["a9"], "grouped", group=2),
        make("AveragePool", ["a9"], ["b0_"], "average", kernel_shape=[2, 2], strides=[2, 2]),
        make("Flatten", ["b0_"], ["b1_"], "flat"),
        make("Gemm", ["b1_", "wl", "bl"], ["y"], "classify", transB=1),
    ]
    height = (size + pad + 1 - 3) // stride + 1
    features = (height // 2) * (size // 2) * 2 * channels

    def normal(*shape: int, scale: float = 0.5) -> np.ndarray:
        return rng.normal(0, scale, shape).astype(np.float32)

    constants = {
        "w0": normal(channels, 1, 3, 3),
        "b0": normal(channels),
        "g": rng.uniform(-1.5, 1.5, channels).astype(np.float32),
        "h": normal(channels),
        "m": normal(channels),
        "v": rng.uniform(0.5, 2, channels).astype(np.float32),
        "wd": normal(channels, 1, 3, 3),
        "wg": normal(2 * channels, channels, 1, 1),
        "bg": normal(2 * channels),
        "wl": normal(5, features),
        "bl": normal(5),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    return net(nodes, constants, (1, size, size))
