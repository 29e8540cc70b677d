"""Models made on the spot, of a size that a benchmark asks for: the weights are noise.

What a runtime costs depends on a network's shape, not on what it has learnt.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

CLASSES = 10


def mobile_net(path: Path, *, size: int, width: int, blocks: int, head: int = 0) -> Path:
    """Write a network of inverted bottlenecks with squeeze and excitation, as EfficientNet is.

    Args:
        path: where the ONNX file goes.
        size: the picture is [1, 3, size, size] float32.
        width: channels of the first block; they double with each halving of the picture.
        blocks: bottlenecks, a halving at every fourth.
        head: channels of the last convolution before the classes; none for 0.
    """
    net = _Net()
    channels = width
    at = net.conv("image", 3, channels, kernel=3, stride=2)
    for block in range(blocks):
        stride = 2 if block % 4 == 3 else 1
        out = channels * stride
        at = net.bottleneck(at, channels, out, stride=stride)
        channels = out
    if head:
        at, channels = net.conv(at, channels, head), head
    at = net.node("GlobalAveragePool", [at])
    at = net.node("Flatten", [at])
    net.node("Gemm", [at, net.weight((channels, CLASSES)), net.weight((CLASSES,))], "logits")
    graph = helper.make_graph(
        net.nodes,
        "mobile",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


class _Net:
    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._random = np.random.default_rng(1)

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def weight(self, shape: tuple[int, ...]) -> str:
        name = f"w{len(self.weights)}"
        scale = (2 / max(1, int(np.prod(shape[1:])))) ** 0.5
        values = (self._random.standard_normal(shape, np.float32) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self, at: str, channels: int, out: int, *, kernel: int = 1, stride: int = 1, group: int = 1
    ) -> str:
        """A convolution, its batch normalization, and x * sigmoid(x)."""
        shape = (out, channels // group, kernel, kernel)
        edge = kernel // 2
        conv = self.node(
            "Conv",
            [at, self.weight(shape)],
            kernel_shape=[kernel, kernel],
            pads=[edge] * 4,
            strides=[stride, stride],
            group=group,
        )
        ones = [self._constant(np.full(out, value, np.float32)) for value in (1, 0, 0, 1)]
        normal = self.node("BatchNormalization", [conv, *ones])
        return self.node("Mul", [normal, self.node("Sigmoid", [normal])])

    def bottleneck(self, at: str, channels: int, out: int, *, stride: int) -> str:
        wide = channels * 4
        inner = self.conv(at, channels, wide)
        inner = self.conv(inner, wide, wide, kernel=3, stride=stride, group=wide)
        squeezed = self.node("GlobalAveragePool", [inner])
        squeezed = self.conv(squeezed, wide, max(4, channels // 4))
        gate = self.node("Conv", [squeezed, self.weight((wide, max(4, channels // 4), 1, 1))])
        inner = self.node("Mul", [inner, self.node("Sigmoid", [gate])])
        inner = self.conv(inner, wide, out)
        return inner if (stride, channels) != (1, out) else self.node("Add", [at, inner])

    def _constant(self, values: NDArray[np.float32]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name
