"""ONNX models read for gateware: they compute what onnxruntime computes, or are refused by name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from converters.fpga.integer.from_onnx import integer_graph
from converters.fpga.integer.network import evaluate, outputs
from converters.fpga.integer.operators import supported
from converters.fpga.integer.reading import read
from converters.fpga.integer.reference import decode_output, encode_input, run
from converters.methods.refusal import NotQuantizableError

from .onnx_nets import mixed_net, net

make = helper.make_node
RNG = np.random.default_rng(0)
W = RNG.normal(0, 0.5, (4, 2, 3, 3)).astype(np.float32)
D = RNG.normal(0, 0.5, (2, 1, 3, 3)).astype(np.float32)
DENSE = RNG.normal(0, 0.5, (100, 3)).astype(np.float32)
BY_CHANNEL = np.array([2.0, -0.5], np.float32).reshape(1, 2, 1, 1)


def session_outputs(model: bytes, samples: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": sample[None]})[0] for sample in samples])


def samples_of(shape: Sequence[int], count: int = 6) -> np.ndarray:
    return np.random.default_rng(1).normal(0.1, 1, (count, *shape)).astype(np.float32)


NETS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], tuple[int, ...]]] = {
    "channel last": (
        [
            make("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
            make("Conv", ["a", "w"], ["b"], strides=[2, 1], auto_pad="SAME_UPPER"),
            make("Relu", ["b"], ["c"]),
            make("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
        ],
        {"w": W},
        (5, 5, 2),
    ),
    "flattened in the picture's order": (
        [
            make("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
            make("Relu", ["a"], ["a2"]),
            make("Flatten", ["a2"], ["b"]),
            make("MatMul", ["b", "d"], ["c"]),
            make("Add", ["c", "e"], ["z"]),
            make("Softmax", ["z"], ["y"], axis=-1),
        ],
        {"w": W, "d": DENSE, "e": np.array([1, -1, 0.5], np.float32)},
        (2, 5, 5),
    ),
    "a reshape first": (
        [
            make("Reshape", ["x", "s"], ["a"]),
            make("Conv", ["a", "d"], ["y"], group=2, auto_pad="SAME_LOWER"),
        ],
        {"s": np.array([-1, 2, 5, 5]), "d": D},
        (50,),
    ),
    "scaled by channel at the input and between layers": (
        [
            make("Sub", ["x", "m"], ["a"]),
            make("Mul", ["a", "g"], ["b"]),
            make("Conv", ["b", "d"], ["c"], group=2),
            make("Relu", ["c"], ["d1"]),
            make("Mul", ["g", "d1"], ["e"]),
            make("Div", ["e", "two"], ["f"]),
            make("Sub", ["two", "f"], ["y"]),
        ],
        {"m": np.float32(0.5), "g": BY_CHANNEL, "d": D, "two": np.float32(2)},
        (2, 5, 5),
    ),
    "a clip of what others read, too": (
        [
            make("Conv", ["x", "d"], ["a"], group=2),
            make("Clip", ["a", "lo", "hi"], ["b"]),
            make("Add", ["a", "b"], ["y"]),
        ],
        {"d": D, "lo": np.float32(-0.5), "hi": np.float32(0.75)},
        (2, 5, 5),
    ),
    "pools": (
        [
            make("AveragePool", ["x"], ["a"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4,
                 count_include_pad=1),
            make("MaxPool", ["a"], ["b"], kernel_shape=[2, 2], pads=[0, 1, 1, 0]),
            make("Relu", ["b"], ["b2"]),
            make("GlobalMaxPool", ["b2"], ["c"]),
            make("ReduceMean", ["b2"], ["d"], axes=[2, 3], keepdims=1),
            make("Concat", ["c", "d"], ["e"], axis=1),
            make("Squeeze", ["e", "axes"], ["y"]),
        ],
        {"axes": np.array([2, 3])},
        (2, 6, 6),
    ),
    "a dilated convolution": (
        [
            make("Conv", ["x", "w"], ["a"], "wide", dilations=[2, 1], pads=[2, 1, 2, 1]),
            make("Relu", ["a"], ["y"]),
        ],
        {"w": W},
        (2, 6, 6),
    ),
    "a shortcut that skips rows and adds channels": (
        [
            make("Conv", ["x", "d"], ["a"], group=2, pads=[1] * 4),
            make("Relu", ["a"], ["b"]),
            make("Slice", ["b", "none", "far", "axes", "two"], ["c"]),
            make("Pad", ["c", "p"], ["e"]),
            make("Conv", ["b", "w"], ["f"], strides=[2, 2], pads=[1] * 4),
            make("Add", ["e", "f"], ["y"]),
        ],
        {"d": D, "w": W, "none": np.array([0, 0]), "far": np.array([2**31, 9]),
         "axes": np.array([2, -1]), "two": np.array([2, 2]),
         "p": np.array([0, 1, 0, 0, 0, 1, 0, 0])},
        (2, 6, 6),
    ),
    "functions": (
        [
            make("Conv", ["x", "d"], ["a"], group=2),
            make("HardSwish", ["a"], ["b"]),
            make("Tanh", ["b"], ["c"]),
            make("LeakyRelu", ["c"], ["e"], alpha=0.2),
            make("Sigmoid", ["e"], ["f"]),
            make("GlobalAveragePool", ["f"], ["y"]),
        ],
        {"d": D},
        (2, 5, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_a_read_model_computes_what_onnxruntime_does(name: str) -> None:
    nodes, constants, shape = NETS[name]
    model = net(nodes, constants, shape)
    samples = samples_of(shape)
    network = read(model)
    wanted = session_outputs(model, samples)
    given = outputs(network, evaluate(network, samples))
    assert given.shape == wanted.shape
    np.testing.assert_allclose(given, wanted, atol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_its_integer_graph_is_near_and_in_the_same_order(name: str) -> None:
    nodes, constants, shape = NETS[name]
    model = net(nodes, constants, shape)
    samples = samples_of(shape, 16)
    graph = integer_graph(model, samples)
    wanted = session_outputs(model, samples)
    given = decode_output(graph, run(graph, encode_input(graph, samples)))
    assert given.shape == wanted.shape
    # Eight bits over a few layers: a fiftieth of the range, far below any mistake of order.
    assert np.sqrt(np.square(given - wanted).mean()) < 0.02 * np.ptp(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_a_net_of_every_layer_is_read_rightly(seed: int) -> None:
    model = mixed_net(seed)
    samples = samples_of((1, 6, 6))
    network = read(model)
    given = outputs(network, evaluate(network, samples))
    np.testing.assert_allclose(given, session_outputs(model, samples), atol=1e-5)


def test_an_argmax_gives_the_class_itself() -> None:
    nodes = [
        make("Flatten", ["x"], ["a"]),
        make("MatMul", ["a", "d"], ["b"]),
        make("ArgMax", ["b"], ["y"], axis=1, keepdims=0),
    ]
    model = net(nodes, {"d": DENSE}, (4, 5, 5), output_type=onnx.TensorProto.INT64)
    samples = samples_of((4, 5, 5), 40)
    graph = integer_graph(model, samples)
    given = decode_output(graph, run(graph, encode_input(graph, samples)))
    wanted = session_outputs(model, samples)
    assert (given.shape, given.dtype) == (wanted.shape, wanted.dtype)
    assert (given == wanted).mean() > 0.9


def test_a_model_in_qdq_keeps_its_scales() -> None:
    codes = np.clip(np.round(DENSE.T[:, :10] * 50), -127, 127).astype(np.int8)
    nodes = [
        make("QuantizeLinear", ["x", "sx", "zx"], ["q"]),
        make("DequantizeLinear", ["q", "sx", "zx"], ["f"]),
        make("DequantizeLinear", ["w", "sw", "zw"], ["wf"], axis=0),
        make("Gemm", ["f", "wf"], ["a"], transB=1),
        make("Relu", ["a"], ["r"]),
        make("QuantizeLinear", ["r", "sy", "zy"], ["p"]),
        make("DequantizeLinear", ["p", "sy", "zy"], ["y"]),
    ]
    constants: dict[str, Any] = {
        "sx": np.float32(0.03),
        "zx": np.int8(0),
        "w": codes,
        "sw": np.array([0.02, 0.01, 0.03], np.float32),
        "zw": np.zeros(3, np.int8),
        "sy": np.float32(0.02),
        "zy": np.uint8(0),
    }
    model = net(nodes, constants, (10,))
    samples = samples_of((10,), 50)
    graph = integer_graph(model, samples)
    assert graph.tensors[graph.input].scale == pytest.approx(0.03)
    assert np.array_equal(graph.layers[0].weights.reshape(3, 10), codes)  # type: ignore[union-attr]
    given = decode_output(graph, run(graph, encode_input(graph, samples)))
    wanted = session_outputs(model, samples)
    assert np.abs(given - wanted).max() < 0.0201  # ties, and the 15 bits of a factor
    assert (np.abs(given - wanted) < 1e-6).mean() > 0.97


REFUSED = [
    ("Erf", [make("Erf", ["x"], ["y"])], {}, (2, 5, 5), "Known are"),
    ("Mul", [make("Mul", ["x", "x"], ["y"])], {}, (2, 5, 5), "both its operands are computed"),
    (
        "MaxPool",
        [make("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])],
        {},
        (2, 5, 5),
        "without",
    ),
    (
        "Slice",
        [make("Slice", ["x", "one", "two", "one"], ["y"])],
        {"one": np.array([1]), "two": np.array([2])},
        (2, 5, 5),
        "cuts values off",
    ),
    (
        "Pad",
        [make("Pad", ["x", "p"], ["y"], mode="reflect")],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        (2, 5, 5),
        "other values than zero",
    ),
    ("Conv", [make("Conv", ["x", "x"], ["y"])], {}, (2, 5, 5), "its weights are computed"),
    ("Softmax", [make("Softmax", ["x"], ["y"], axis=1)], {}, (2, 5, 5), "not over the last axis"),
    (
        "AveragePool",
        [make("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        {},
        (2, 5, 5),
        "count_include_pad",
    ),
    (
        "MaxPool",
        [make("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)],
        {},
        (2, 5, 5),
        "ceil_mode 0",
    ),
    (
        "Transpose",
        [make("Transpose", ["x"], ["y"], perm=[1, 0, 2, 3])],
        {},
        (2, 5, 5),
        "mixes samples",
    ),
    (
        "Conv",
        [
            make("Conv", ["x", "d"], ["a"], group=2, pads=[1, 1, 1, 1]),
            make("Transpose", ["a"], ["b"], perm=[0, 1, 3, 2]),
            make("Conv", ["b", "w"], ["y"]),
        ],
        {"d": D, "w": W},
        (2, 10, 10),
        "values were moved",
    ),
    ("Add", [make("Add", ["x", "p"], ["y"])], {"p": RNG.normal(size=(5, 5))}, (2, 5, 5), "place"),
]


@pytest.mark.parametrize(("operator", "nodes", "constants", "shape", "why"), REFUSED)
def test_what_gateware_cannot_compute_is_refused_by_name(
    operator: str, nodes: list[Any], constants: dict[str, Any], shape: tuple[int, ...], why: str
) -> None:
    constants = {k: v.astype(np.float32) if v.dtype == float else v for k, v in constants.items()}
    with pytest.raises(NotQuantizableError) as caught:
        read(net(nodes, constants, shape))
    assert f"operator {operator}" in caught.value.what
    assert why in caught.value.why
    assert "CPU or NPU target" in caught.value.fix


def test_a_model_of_two_inputs_or_outputs_is_refused() -> None:
    model = net([make("Relu", ["x"], ["y"]), make("Tanh", ["y"], ["z"])], {}, (4,), outputs="yz")
    with pytest.raises(NotQuantizableError, match="2 outputs"):
        read(model)


def test_a_free_axis_is_refused_with_the_option_that_fixes_it() -> None:
    with pytest.raises(NotQuantizableError, match="--dim"):
        read(net([make("Relu", ["x"], ["y"])], {}, (1, "height", 5)))


def test_what_is_supported_is_named() -> None:
    asked = "Conv Gemm MatMul MaxPool AveragePool GlobalAveragePool Relu Clip HardSigmoid Add"
    asked += " Concat Flatten BatchNormalization ArgMax QuantizeLinear"
    assert set(asked.split()) <= set(supported())
