"""The table of operators for Qualcomm's HTP, put to QNN's own compiler: one net of many nodes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.backends.qualcomm.backend import TOOLCHAIN
from converters.backends.qualcomm.rules import TABLE
from converters.backends.remote import opened_in
from converters.backends.whole import static
from converters.methods import observe, prepare, quantize
from converters.toolchains.exchange import ask
from converters.toolchains.store import Installed
from hardware.profiles import TargetProfile, select

from .locked_tools import named_log, prepared

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("kept_toolchains"),
]

ONE_INPUT = (
    *("Abs", "Asin", "Atan", "Ceil", "Cos", "Elu", "Exp", "Floor", "Gelu", "GlobalAveragePool"),
    *("GlobalMaxPool", "HardSigmoid", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "Neg"),
    *("Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Sqrt"),
    *("Tan", "Tanh"),
)
TWO_INPUTS = ("Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "Sum", "MatMul")
LEFT = ("Softsign", "Acos", "Sinh", "Hardmax", "GlobalLpPool")
SHAPE = (1, 4, 8, 8)


def net() -> onnx.ModelProto:
    """A convolution, and a node of each operator on what it gives, each an output."""
    weight = 0.3 * np.random.default_rng(0).normal(size=(4, 4, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "weight"], ["made"], name="conv"),
        helper.make_node("Sigmoid", ["made"], ["x"], name="first"),
        helper.make_node("Add", ["x", "half"], ["z"], name="second"),
    ]
    nodes += [helper.make_node(op, ["x"], [op], name=op) for op in (*ONE_INPUT, *LEFT)]
    nodes += [helper.make_node(op, ["x", "z"], [op], name=op) for op in TWO_INPUTS]
    made = [*ONE_INPUT, *LEFT, *TWO_INPUTS]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture(scope="module")
def qnn(kept_toolchains: Path) -> Installed:
    return prepared(TOOLCHAIN)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(1)
    feeds = [[rng.normal(size=SHAPE).astype(np.float32)] for _ in range(2)]
    ready = prepare(net().SerializeToString(), feeds)
    statistics = observe(ready, lambda: feeds)
    path = tmp_path_factory.mktemp("operators") / "quantized.onnx"
    path.write_bytes(quantize(ready, statistics, static(activation="uint8"), whole=True).data)
    return path


def test_the_compiler_takes_what_the_table_has_and_leaves_what_it_has_not(
    qnn: Installed, quantized: Path, tmp_path: Path
) -> None:
    output = str(tmp_path / "compiled.onnx")
    reply = ask(qnn, {"model": str(quantized), "output": output, "arch": "73"})
    left = {name for name, _ in reply["left"]}
    assert left & {*ONE_INPUT, *TWO_INPUTS, *LEFT} == set(LEFT)
    assert {*ONE_INPUT, *TWO_INPUTS} <= set(TABLE)
    assert not set(LEFT) & set(TABLE)


HTPS = [profile for profile in select(["npu"]) if profile.backend == "qualcomm"]


@pytest.mark.parametrize("profile", HTPS, ids=lambda profile: profile.name)
def test_each_architecture_has_a_file_of_its_own_that_loads_and_answers(
    qnn: Installed, quantized: Path, tmp_path: Path, profile: TargetProfile
) -> None:
    output = tmp_path / "compiled.onnx"
    arch = str(profile.settings["arch"])
    reply = ask(qnn, {"model": str(quantized), "output": str(output), "arch": arch})
    assert "refused" not in reply
    with opened_in(qnn, "qnn", output) as session:
        answers = session.run([np.zeros(SHAPE, np.float32)])
        names = [output.name for output in session.outputs]
    assert len(names) == len(answers) == len({*ONE_INPUT, *TWO_INPUTS, *LEFT})
    assert np.isfinite(answers[names.index("Sigmoid")]).all()


def test_the_same_file_is_compiled_to_the_same_bytes_anywhere(
    qnn: Installed, quantized: Path, tmp_path: Path
) -> None:
    made = []
    for name in ("one", "another place"):
        output = tmp_path / name / "compiled.onnx"
        output.parent.mkdir()
        ask(qnn, {"model": str(quantized), "output": str(output), "arch": "73"})
        made.append(output.read_bytes())
    assert made[0] == made[1]


def test_what_the_compiler_fails_on_is_a_sentence_of_its_own(
    qnn: Installed, tmp_path: Path
) -> None:
    proto = net()
    for node in proto.graph.node:
        if node.name == "Relu":
            node.op_type = "Selu"
    rng = np.random.default_rng(1)
    feeds = [[rng.normal(size=SHAPE).astype(np.float32)]]
    ready = prepare(proto.SerializeToString(), feeds)
    made = quantize(ready, observe(ready, lambda: feeds), static(activation="uint8"), whole=True)
    (tmp_path / "quantized.onnx").write_bytes(made.data)
    request = {"model": str(tmp_path / "quantized.onnx"), "output": str(tmp_path / "out.onnx")}
    reply = ask(qnn, request | {"arch": "73"})
    assert reply["refused"].startswith("Failed to finalize QNN graph.")
    assert "\n" not in reply["refused"]
    assert "It could not create" in reply["refused"]
    assert "Relu_elu" in reply["refused"]  # as QNN calls what it makes of this Selu
    assert '<E> "Relu_elu" generated: could not create op' in named_log(reply["log"])
