"""Models as they come from elsewhere: small, with random weights, each odd in its own way."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper

Sample = Callable[[np.random.Generator], dict[str, np.ndarray]]
FLOAT = T.FLOAT


class Net:
    """A graph in the making; `add` returns the name of a node's first output."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._opset = opset
        self._rng = np.random.default_rng(seed)

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        index = len(self.nodes)
        names = [f"t{index}_{number}" for number in range(outputs)]
        name = f"{kind}_{index}"
        self.nodes.append(helper.make_node(kind, [*inputs], names, name=name, **attributes))
        return names[0]

    def constant(self, value: object, kind: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(value, kind)
        return name

    def weight(self, *shape: int) -> str:
        deviation = math.sqrt(2 / math.prod(shape[1:]))
        return self.constant(self._rng.normal(0, deviation, shape))

    def convolution(self, x: str, inputs: int, outputs: int, group: int = 1) -> str:
        weight = self.weight(outputs, inputs // group, 3, 3)
        y = self.add("Conv", x, weight, pads=[1, 1, 1, 1], group=group)
        return self.add("Relu", y)

    def classify(self, x: str, channels: int, classes: int = 5) -> str:
        pooled = self.add("Flatten", self.add("GlobalAveragePool", x))
        return self.add("MatMul", pooled, self.weight(channels, classes))

    def save(
        self, path: Path, inputs: dict[str, tuple[int, list[Any]]], *outputs: str
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(n, *kind) for n, kind in inputs.items()],
            [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs],
            [numpy_helper.from_array(value, n) for n, value in self.constants.items()],
        )
        sets = [helper.make_opsetid("", self._opset)]
        model = helper.make_model(graph, opset_imports=sets, ir_version=8)
        onnx.save(model, path)
        return model


def image(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": (rng.normal(size=(3, 12, 12)) + rng.normal(size=(3, 1, 1))).astype(np.float32)}


IMAGE: dict[str, tuple[int, list[Any]]] = {"x": (FLOAT, ["N", 3, 12, 12])}


def _tokens(path: Path) -> Sample:
    """Token ids through an embedding, attention, layer norms and a Gelu made of parts."""
    net, width, length = Net(), 16, 8
    x = net.add("Gather", net.weight(50, width), "x")

    def normed(x: str) -> str:
        ones, zeros = net.constant(np.ones(width)), net.constant(np.zeros(width))
        return net.add("LayerNormalization", x, ones, zeros, axis=-1)

    n = normed(x)
    query, key, value = (net.add("MatMul", n, net.weight(width, width)) for _ in range(3))
    scores = net.add("MatMul", query, net.add("Transpose", key, perm=[0, 2, 1]))
    x = net.add("Add", x, net.add("MatMul", net.add("Softmax", scores, axis=-1), value))
    wide = net.add("MatMul", normed(x), net.weight(width, 4 * width))
    bell = net.add("Erf", net.add("Div", wide, net.constant(np.sqrt(2))))
    gelu = net.add("Mul", wide, net.add("Add", bell, net.constant(1)))
    x = net.add("Add", x, net.add("MatMul", gelu, net.weight(4 * width, width)))
    pooled = net.add("ReduceMean", x, axes=[1], keepdims=0)
    logits = net.add("MatMul", pooled, net.weight(width, 5))
    net.save(path, {"x": (T.INT64, ["batch", length])}, logits)
    return lambda rng: {"x": rng.integers(0, 50, length)}


def _bytes(path: Path) -> Sample:
    """Pixels as bytes, turned to floats inside."""
    net = Net()
    x = net.add("Mul", net.add("Cast", "x", to=FLOAT), net.constant(1 / 255))
    x = net.convolution(net.add("Transpose", x, perm=[0, 3, 1, 2]), 3, 8)
    net.save(path, {"x": (T.UINT8, ["N", 12, 12, 3])}, net.classify(x, 8))
    return lambda rng: {"x": rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)}


def _half(path: Path) -> Sample:
    """Inputs and outputs in float16."""
    net = Net()
    x = net.convolution(net.add("Cast", "x", to=FLOAT), 3, 8)
    y = net.add("Cast", net.classify(x, 8), to=T.FLOAT16)
    model = net.save(path, {"x": (T.FLOAT16, ["N", 3, 12, 12])}, y)
    model.graph.output[0].type.tensor_type.elem_type = T.FLOAT16
    onnx.save(model, path)
    return lambda rng: {"x": image(rng)["x"].astype(np.float16)}


def _branches(path: Path) -> Sample:
    """An If with weights in one branch, and a Loop."""
    net = Net()
    logits = net.classify(net.convolution("x", 3, 8), 8)

    def branch(kind: str, second: np.ndarray) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(kind, [logits, "b"], [f"of_{kind}"], name=f"in_{kind}")],
            kind,
            [],
            [helper.make_tensor_value_info(f"of_{kind}", FLOAT, None)],
            [numpy_helper.from_array(second.astype(np.float32), "b")],
        )

    mean = net.add("ReduceMean", logits, keepdims=0)
    chosen = net.add(
        "If",
        net.add("Greater", mean, net.constant(0)),
        then_branch=branch("Mul", np.array(2)),
        else_branch=branch("MatMul", np.eye(5)),
    )
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [helper.make_tensor_value_info("i", T.INT64, []),
         helper.make_tensor_value_info("go", T.BOOL, []),
         helper.make_tensor_value_info("v", FLOAT, None)],
        [helper.make_tensor_value_info("on", T.BOOL, []),
         helper.make_tensor_value_info("w", FLOAT, None)],
    )  # fmt: skip
    looped = net.add("Loop", net.constant(2, np.int64), "", chosen, body=body)
    net.save(path, IMAGE, looped)
    return image


def _recurrent(path: Path) -> Sample:
    """A GRU over a sequence of a free length."""
    net = Net(opset=14)
    x = net.add("Transpose", "x", perm=[1, 0, 2])
    weights = net.weight(1, 48, 4), net.weight(1, 48, 16)
    net.add("GRU", x, *weights, outputs=2, hidden_size=16)
    last = net.add("Squeeze", f"t{len(net.nodes) - 1}_1", net.constant([0], np.int64))
    logits = net.add("MatMul", last, net.weight(16, 5))
    net.save(path, {"x": (FLOAT, ["N", "time", 4])}, logits)
    return lambda rng: {"x": rng.normal(size=(10, 4)).astype(np.float32)}


def _nameless(path: Path) -> Sample:
    """Nodes without names, an unnamed batch axis, tensors with strange names."""
    net = Net()
    logits = net.classify(net.convolution("in put:0/ä", 3, 8), 8)
    for node in net.nodes:
        node.name = ""
    net.save(path, {"in put:0/ä": (FLOAT, [None, 3, 12, 12])}, logits)
    return image


def _empty(path: Path) -> Sample:
    """A constant of size zero, and one that is an input as well."""
    net = Net()
    y = net.classify(net.convolution("x", 3, 8), 8)
    y = net.add("Concat", y, net.constant(np.zeros((1, 0))), axis=1)
    first = next(iter(net.constants))
    net.save(path, {"x": (FLOAT, [1, 3, 12, 12]), first: (FLOAT, [8, 3, 3, 3])}, y)
    return image


def _upwards(path: Path) -> Sample:
    """Depthwise, a transposed convolution and a Resize; two outputs."""
    net = Net()
    x = net.convolution(net.convolution("x", 3, 8), 8, 8, group=8)
    x = net.add("ConvTranspose", x, net.weight(8, 8, 2, 2), strides=[2, 2])
    sizes = net.constant([1, 1, 0.5, 0.5])
    x = net.add("Resize", x, "", sizes, mode="linear")
    logits = net.classify(x, 8)
    net.save(path, IMAGE, logits, net.add("Softmax", logits))
    return image


def _double(path: Path) -> Sample:
    """Computes in float64, so that nothing of it can be quantized."""
    net = Net()
    weight = net.constant(np.random.default_rng(0).normal(size=(10, 5)), np.float64)
    model = net.save(path, {"x": (T.DOUBLE, ["N", 10])}, net.add("MatMul", "x", weight))
    model.graph.output[0].type.tensor_type.elem_type = T.DOUBLE
    onnx.save(model, path)
    return lambda rng: {"x": rng.normal(size=10)}


ODD = {
    "token ids through a transformer": _tokens,
    "bytes in": _bytes,
    "float16 in and out": _half,
    "an If and a Loop": _branches,
    "a GRU of a free length": _recurrent,
    "nodes without names": _nameless,
    "a constant of size zero": _empty,
    "depthwise, upwards, two outputs": _upwards,
    "float64": _double,
}


def write_data(
    folder: Path, model: Path, sample: Sample, *, evaluation: int = 120
) -> tuple[Path, Path]:
    """Calibration and evaluation data; what is right is what the model answers."""
    session = ort.InferenceSession(model)
    names = [value.name for value in session.get_inputs()]
    paths = []
    for split, count, seed in (("calibration", 24, 1), ("evaluation", evaluation, 2)):
        rng = np.random.default_rng(seed)
        rows = [sample(rng) for _ in range(count)]
        x = np.stack([row["x"] for row in rows])
        answers = [session.run(None, {names[0]: each[None]})[0] for each in x]
        paths.append(folder / f"{split}.npz")
        np.savez(paths[-1], x=x, y=np.array([int(np.argmax(answer)) for answer in answers]))
    return paths[0], paths[1]
