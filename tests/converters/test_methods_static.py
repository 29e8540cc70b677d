"""Static QDQ files: their flavours, and float nodes that stay in float when they are executed."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.methods import Prepared, observe, prepare, quantize
from converters.methods.islands import protect_islands
from converters.recipe import keep_float, static_qdq

RNG = np.random.default_rng(2)
IMAGES = RNG.uniform(0, 1, (12, 1, 8, 6, 6)).astype(np.float32)


def feeds() -> Iterator[list[np.ndarray]]:
    return ([image] for image in IMAGES)


def chain(between: tuple[str, ...], middle: str = "Conv") -> Prepared:
    """Three layers; the middle one has weights that one scale cannot hold."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
        helper.make_node(middle, ["r1", "w2", "b2"], ["t0"], name="middle"),
    ]
    for index, operator in enumerate(between):
        settings = {"perm": [0, 1, 3, 2]} if operator == "Transpose" else {}
        inputs = [f"t{index}", *(["zero", "four"] if operator == "Clip" else [])]
        nodes.append(
            helper.make_node(operator, inputs, [f"t{index + 1}"], name=f"{index}", **settings)
        )
    nodes.append(helper.make_node("Conv", [f"t{len(between)}", "w3"], ["y"], name="last"))
    constants = {f"w{i}": RNG.normal(0.1, 0.3, (8, 8, 1, 1)) for i in (1, 2, 3)}
    constants |= {f"b{i}": RNG.normal(0.2, 0.1, 8) for i in (1, 2)}
    constants |= {"zero": np.array(0), "four": np.array(4)}
    constants["w1"][0], constants["b1"][0] = -1, -1  # always zero behind its ReLU
    constants["w2"][:, 0] = 200
    if middle == "ConvTranspose":
        constants["w2"] = constants["w2"].transpose(1, 0, 2, 3)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return prepare(made.SerializeToString())


def run(data: bytes, **settings: object) -> np.ndarray:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"], **settings)
    return np.concatenate([session.run(None, {"x": image})[0] for image in IMAGES])


def sqnr(exact: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10((exact**2).sum() / ((exact - got) ** 2).sum()))


@pytest.mark.parametrize("middle", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("between", [(), ("Relu",), ("Clip",), ("Transpose",), ("Relu", "Clip")])
def test_a_layer_kept_in_float_is_not_quantized_by_the_runtime_after_all(
    between: tuple[str, ...], middle: str
) -> None:
    prepared = chain(between, middle)
    exact = run(prepared.proto.SerializeToString())
    statistics = observe(prepared, feeds)
    rules = static_qdq("u8s8")
    assert sqnr(exact, run(quantize(prepared, statistics, rules).data)) < 20
    kept = quantize(prepared, statistics, keep_float(rules, ["middle"]))
    assert kept.nodes == 2
    assert sqnr(exact, run(kept.data)) > 30


def test_the_protection_is_needed_and_changes_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepared = chain(("Relu",))
    statistics = observe(prepared, feeds)
    rules = keep_float(static_qdq("u8s8"), ["middle"])
    protected = quantize(prepared, statistics, rules).data
    monkeypatch.setattr("converters.methods.static.protect_islands", lambda graph: None)
    bare = quantize(prepared, statistics, rules).data
    exact = run(prepared.proto.SerializeToString())
    assert sqnr(exact, run(bare)) < 20 < sqnr(exact, run(protected))
    without = {"disabled_optimizers": ["WeightBiasQuantization"]}
    np.testing.assert_allclose(run(bare, **without), run(protected, **without), atol=1e-2)


def test_a_file_that_is_quantized_throughout_is_left_as_it_is() -> None:
    prepared = chain(("Relu",))
    made = onnx.load_model_from_string(
        quantize(prepared, observe(prepared, feeds), static_qdq("u8s8")).data
    )
    before = made.SerializeToString(deterministic=True)
    protect_islands(made.graph)
    assert made.SerializeToString(deterministic=True) == before


def test_weights_in_uint8_share_one_zero_point() -> None:
    prepared = chain(())
    made = quantize(prepared, observe(prepared, feeds), static_qdq("u8u8"))
    graph = onnx.load_model_from_string(made.data).graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    points = [
        values[node.input[2]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and values.get(node.input[0], np.zeros(1)).ndim == 4
    ]
    assert len(points) == 3
    assert all(point.dtype == np.uint8 for point in points)
    assert {int(number) for point in points for number in np.ravel(point)} <= {127, 128}
