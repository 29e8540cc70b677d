"""Dynamic, half-precision and weight-only files: what they change, and what they refuse."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.methods import NotQuantizableError, Prepared, observe, prepare, quantize
from converters.recipe import (
    Method,
    Parameters,
    Rule,
    dynamic,
    float16,
    keep_float,
    static_qdq,
    weight_only,
)

RNG = np.random.default_rng(3)
ROWS = RNG.normal(0, 1, (6, 5, 48)).astype(np.float32)


def model(nodes: list, constants: dict[str, np.ndarray], shape: tuple = (1, 5, 48)) -> Prepared:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return prepare(made.SerializeToString())


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.2, shape).astype(np.float32)


def products() -> Prepared:
    """MatMul, Gemm with a transposed matrix and a bias, and a product of two activations."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["m"], name="matmul"),
        helper.make_node("Relu", ["m"], ["r"], name="relu"),
        helper.make_node("Squeeze", ["r", "zero"], ["s"], name="squeeze"),
        helper.make_node("Gemm", ["s", "b", "c"], ["g"], name="gemm", transB=1),
        helper.make_node("Transpose", ["g"], ["t"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["g", "t"], ["y"], name="both"),
    ]
    constants = {
        "a": weights(48, 40),
        "b": weights(24, 40),
        "c": weights(24),
        "zero": np.array([0], np.int64),
    }
    return model(nodes, constants)


def recurrent(operator: str) -> Prepared:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="turn", perm=[1, 0, 2]),
        helper.make_node(operator, ["t", "w", "r"], ["h"], name="cell", hidden_size=16),
        helper.make_node("MatMul", ["h", "d"], ["y"], name="dense"),
    ]
    constants = {
        "w": weights(1, gates * 16, 48),
        "r": weights(1, gates * 16, 16),
        "d": weights(16, 3),
    }
    return model(nodes, constants)


def run(data: bytes | Prepared, rows: np.ndarray = ROWS) -> np.ndarray:
    content = data.proto.SerializeToString() if isinstance(data, Prepared) else data
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"x": row[None]})[0] for row in rows])


def sqnr(exact: np.ndarray, got: np.ndarray) -> float:
    return float(10 * np.log10((exact**2).sum() / ((exact - got) ** 2).sum()))


def operators(data: bytes) -> Counter[str]:
    return Counter(n.op_type for n in onnx.load_model_from_string(data).graph.node)


@pytest.mark.parametrize("changes", [{}, {"reduced_range": True}, {"weight": "uint8"}])
def test_dynamic_makes_products_with_constant_weights_integer(changes: dict) -> None:
    prepared = products()
    made = quantize(prepared, None, dynamic(**changes))
    assert made.nodes == 2
    assert operators(made.data)["MatMulInteger"] == 2
    assert operators(made.data)["MatMul"] == 1
    assert sqnr(run(prepared), run(made.data)) > 28


def test_dynamic_leaves_the_nodes_that_rules_name_in_float() -> None:
    made = quantize(products(), None, keep_float(dynamic(), ["gemm"]))
    assert made.nodes == 1


def test_dynamic_quantizes_an_lstm_and_leaves_other_cells_in_float() -> None:
    prepared = recurrent("LSTM")
    made = quantize(prepared, None, dynamic())
    assert operators(made.data)["DynamicQuantizeLSTM"] == 1
    assert sqnr(run(prepared), run(made.data)) > 20
    made = quantize(recurrent("GRU"), None, dynamic())
    assert (operators(made.data)["GRU"], made.nodes) == (1, 1)


@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
def test_no_recurrent_cell_stops_static_quantization(operator: str) -> None:
    prepared = recurrent(operator)
    statistics = observe(prepared, lambda: ([row[None]] for row in ROWS))
    made = quantize(prepared, statistics, static_qdq("u8s8"))
    assert operators(made.data)[operator] == 1
    assert sqnr(run(prepared), run(made.data)) > 20
    assert quantize(prepared, None, float16()).nodes == 2


@pytest.mark.parametrize(
    ("rules", "least_db"),
    [
        (weight_only("int8"), 40),
        (weight_only("int4"), 15),
        (weight_only("int4", block=64, activation="int8"), 14),
    ],
)
def test_weight_only_packs_the_matrices_of_products(rules: tuple, least_db: float) -> None:
    prepared = products()
    made = quantize(prepared, None, rules)
    assert made.nodes == 2
    assert operators(made.data)["MatMulNBits"] == 2
    assert sqnr(run(prepared), run(made.data)) > least_db
    assert len(made.data) < 0.5 * len(prepared.proto.SerializeToString())


def test_half_precision_keeps_inputs_and_outputs_in_float32() -> None:
    prepared = products()
    made = quantize(prepared, None, float16())
    assert run(made.data).dtype == np.float32
    assert sqnr(run(prepared), run(made.data)) > 50
    assert len(made.data) < 0.7 * len(prepared.proto.SerializeToString())


def test_half_precision_leaves_the_nodes_that_rules_name_in_float() -> None:
    made = quantize(products(), None, keep_float(float16(), ["matmul"]))
    kept = {t.name: t.data_type for t in onnx.load_model_from_string(made.data).graph.initializer}
    assert kept["a"] == TensorProto.FLOAT
    assert kept["b"] == TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (weight_only("int4"), "Weight-only quantization changes nothing"),
        (weight_only("int8"), "Weight-only quantization changes nothing"),
        (dynamic(), "Dynamic quantization changes nothing"),
        (float16(), "Half precision changes nothing"),
        (dynamic("Softmax"), "quantizes nothing"),
    ],
)
def test_a_method_that_would_change_nothing_is_refused(rules: tuple, words: str) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "t"], ["y"], name="both"),
    ]
    with pytest.raises(NotQuantizableError, match=words):
        quantize(model(nodes, {}), None, rules)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (weight_only("int4", block=33), "blocks of 33"),
        (weight_only("int4", activation="int16"), "int16"),
        (dynamic(weight="int4"), "weights in int4"),
        (static_qdq("u8s8"), "needs calibration"),
        ((*dynamic("MatMul"), Rule(scope="gemm", method=Method.FLOAT16)), "mixes the methods"),
        (
            (
                Rule(operators=("MatMul",), method=Method.DYNAMIC),
                Rule(
                    operators=("Gemm",),
                    method=Method.DYNAMIC,
                    parameters=Parameters(per_channel=False),
                ),
            ),
            "mixes quantization parameters",
        ),
    ],
)
def test_what_a_method_does_not_have_is_refused_by_name(rules: tuple, words: str) -> None:
    with pytest.raises(NotQuantizableError, match=words):
        quantize(products(), None, rules)


def test_branches_and_loops_stay_as_they_are() -> None:
    def branch(name: str, factor: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        node = helper.make_node("Mul", ["m", factor], [name], name=f"{name}_mul")
        return helper.make_graph([node], name, [], [value])

    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["m"], name="matmul"),
        helper.make_node("ReduceSum", ["m"], ["sum"], name="sum", keepdims=0),
        helper.make_node("Less", ["sum", "zero"], ["below"], name="below"),
        helper.make_node(
            "If",
            ["below"],
            ["chosen"],
            name="choose",
            then_branch=branch("then", "one"),
            else_branch=branch("else", "two"),
        ),
        helper.make_node("MatMul", ["chosen", "b"], ["y"], name="last"),
    ]
    constants = {
        "a": weights(48, 40),
        "b": weights(40, 8),
        "zero": np.float32(0),
        "one": np.full(1, 1, np.float32),
        "two": np.full(1, 2, np.float32),
    }
    prepared = model(nodes, constants)
    statistics = observe(prepared, lambda: ([row[None]] for row in ROWS))
    for rules in (static_qdq("u8s8"), dynamic(), float16(), weight_only("int8")):
        made = quantize(prepared, statistics, rules)
        assert operators(made.data)["If"] == 1
        assert sqnr(run(prepared), run(made.data)) > 20


def test_every_file_passes_the_checker_of_onnx(tmp_path: Path) -> None:
    for rules in (dynamic(), float16(), weight_only("int4")):
        path = tmp_path / "made.onnx"
        path.write_bytes(quantize(products(), None, rules).data)
        onnx.checker.check_model(onnx.load(path), full_check=False)
