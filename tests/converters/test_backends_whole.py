"""Models quantized as a whole: their ends too, with activations of 8 or 16 bits."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.backends.whole import static
from converters.methods import observe, prepare, quantize

RNG = np.random.default_rng(5)
SAMPLES = RNG.normal(size=(16, 1, 8)).astype(np.float32)


WEIGHTS = RNG.normal(size=(8, 4)).astype(np.float32)
_KINDS = ("uint8", "uint16")


def product() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = made.SerializeToString()
    return data


def answers(data: bytes) -> np.ndarray:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": sample})[0] for sample in SAMPLES])


def made(activation: str, *, whole: bool) -> bytes:
    prepared = prepare(product())
    statistics = observe(prepared, lambda: ([sample] for sample in SAMPLES))
    return quantize(prepared, statistics, static(activation=activation), whole=whole).data


def test_what_the_last_product_gives_is_quantized_too() -> None:
    """An accelerator of integers takes no float, and a CPU need not round what it gives."""
    for whole, last in ((True, "DequantizeLinear"), (False, "MatMul")):
        graph = onnx.load_model_from_string(made("uint8", whole=whole)).graph
        assert next(n.op_type for n in graph.node if "y" in n.output) == last


def test_activations_of_16_bits_lose_less() -> None:
    exact = answers(product())
    lost = {kind: np.abs(answers(made(kind, whole=True)) - exact).max() for kind in _KINDS}
    assert 0 < lost["uint16"] < lost["uint8"]
    proto = onnx.load_model_from_string(made("uint16", whole=True))
    types = {t.data_type for t in proto.graph.initializer}
    assert {TensorProto.UINT16, TensorProto.INT8} <= types


@pytest.mark.parametrize("kind", _KINDS)
def test_the_same_bytes_are_made_each_time(kind: str) -> None:
    assert made(kind, whole=True) == made(kind, whole=True)
