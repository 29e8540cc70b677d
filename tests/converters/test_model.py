"""A model is checked before any work: what is no model says so in one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.methods import prepare
from converters.methods.sessions import open_bytes, open_model
from converters.model import check_float, check_inputs, load_model
from edgeml.errors import EdgemlError, ExitCode, ModelError, exit_code_of
from hardware.runtimes.interface import TensorSpec


def test_a_model_is_described_as_it_is(convnet: Path) -> None:
    model = load_model(convnet)
    assert model.inputs == (TensorSpec(name="image", shape=("N", 1, 12, 12), dtype="float32"),)
    assert model.outputs == (TensorSpec(name="logits", shape=("N", 4), dtype="float32"),)
    assert model.opset == 17
    assert model.operators["Conv"] == 1
    assert model.parameters == 16 * 9 + 4 * 16 + 64 * 4 + 4
    assert model.data == convnet.read_bytes()


def test_weights_in_another_file_are_taken_into_the_model(convnet: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    onnx.save(
        onnx.load(convnet), outside, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    inside = load_model(outside)
    assert len(inside.data) > outside.stat().st_size
    again = onnx.load_model_from_string(inside.data)
    assert all(t.data_location == TensorProto.DEFAULT for t in again.graph.initializer)


def test_weights_that_are_missing_are_named(convnet: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    onnx.save(
        onnx.load(convnet), outside, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"The weights of .*outside.onnx cannot be read"):
        load_model(outside)


def onnx_without_nodes() -> bytes:
    graph = helper.make_graph([], "empty", [], [])
    data: bytes = helper.make_model(graph, ir_version=8).SerializeToString()
    return data


def onnx_with_a_loose_end() -> bytes:
    node = helper.make_node("Relu", ["nowhere"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    data: bytes = helper.make_model(
        helper.make_graph([node], "net", [], [out]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    ).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not an ONNX model"),
        (b"hello, I am a text file\n" * 20, "is not an ONNX model"),
        (b"PK\x03\x04" + bytes(100), "is not an ONNX model"),
        (onnx_without_nodes(), "no graph with nodes"),
        (onnx_with_a_loose_end(), "is malformed"),
    ],
)
def test_what_is_no_model_is_refused_with_the_reason(
    tmp_path: Path, data: bytes, words: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert words in str(caught.value)
    assert exit_code_of(caught.value) is ExitCode.BAD_MODEL_OR_DATA


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No model file"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="Is a directory"):
        load_model(tmp_path)


def test_a_model_without_inputs_is_refused(tmp_path: Path) -> None:
    zero = numpy_helper.from_array(np.zeros(4, np.float32))
    node = helper.make_node("Constant", [], ["y"], value=zero)
    save(tmp_path / "none.onnx", [node], [], opset=17)
    with pytest.raises(ModelError, match="has no inputs"):
        check_inputs(load_model(tmp_path / "none.onnx"))


def save(path: Path, nodes: list[Any], shape: list[Any], *, opset: int, **more: Any) -> Any:
    """A model from `x` [shape] to `y`, saved."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)] if shape else [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        more.pop("initializer", []),
    )
    sets = [helper.make_opsetid("", opset), *more.pop("sets", [])]
    proto = helper.make_model(graph, opset_imports=sets, **({"ir_version": 8} | more))
    onnx.save(proto, path)
    return proto


def what_changed_most(opset: int) -> list[Any]:
    """Operators as each operator set writes them: bounds, axes and pads as attribute or input."""
    made = []

    def node(operator: str, at: int, **values: list[Any]) -> None:
        """Values are inputs from the operator set `at` on, and attributes before."""
        before = made[-1].output[0] if made else "x"
        inputs = [before]
        if opset >= at:
            for name, value in values.items():
                kind = np.float32 if operator == "Clip" else np.int64
                constant = np.array(value, kind)
                tensor = numpy_helper.from_array(
                    constant.reshape(()) if operator == "Clip" else constant
                )
                made.append(helper.make_node("Constant", [], [f"{before}_{name}"], value=tensor))
                inputs.append(f"{before}_{name}")
            values = {}
        elif operator == "Clip":
            values = {name: value[0] for name, value in values.items()}
        made.append(helper.make_node(operator, inputs, [f"{before}{operator[0]}"], **values))

    node("Pad", 11, pads=[0, 0, 1, 1, 0, 0, 1, 1])
    node("Clip", 11, min=[-0.5], max=[0.5])
    node("Unsqueeze", 13, axes=[1])
    node("Squeeze", 13, axes=[1])
    node("ReduceMean", 18, axes=[2, 3])
    made[-1].output[0] = "y"
    return made


@pytest.mark.parametrize("opset", range(7, 27))
def test_every_operator_set_that_onnxruntime_loads_is_loaded_and_prepared(
    tmp_path: Path, write_convnet: Callable[..., Path], opset: int
) -> None:
    x = np.random.default_rng(0).normal(size=(1, 1, 12, 12)).astype(np.float32)
    save(tmp_path / "mix.onnx", what_changed_most(opset), ["N", 1, 12, 12], opset=opset)
    for path in (write_convnet(tmp_path / "net.onnx", opset=opset), tmp_path / "mix.onnx"):
        model = load_model(path)
        assert model.opset == opset
        feed = {model.inputs[0].name: x}
        [wanted] = open_bytes(model.data).run(None, feed)
        [given] = open_model(prepare(model.data).proto).run(None, feed)
        np.testing.assert_allclose(given, wanted, atol=1e-5)


def test_constants_that_are_no_inputs_are_fine_in_the_oldest_versions_too(convnet: Path) -> None:
    proto = onnx.load(convnet)
    proto.ir_version = 3
    onnx.save(proto, convnet)
    assert [spec.name for spec in load_model(convnet).inputs] == ["image"]


@pytest.mark.parametrize(("opset", "ir"), [(99, 8), (17, 99)])
def test_what_is_newer_than_onnxruntime_is_refused_with_what_it_reads(
    tmp_path: Path, write_convnet: Callable[..., Path], opset: int, ir: int
) -> None:
    proto = onnx.load(write_convnet(tmp_path / "new.onnx"))
    proto.opset_import[0].version, proto.ir_version = opset, ir
    onnx.save(proto, tmp_path / "new.onnx")
    with pytest.raises(ModelError, match=r"too new.*reads the .* up to \d+; the model has"):
        load_model(tmp_path / "new.onnx")


def test_functions_of_a_model_are_looked_into(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 1, 3, 3)).astype(np.float32)
    block = helper.make_function(
        "mine",
        "Block",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight)),
            helper.make_node("Conv", ["a", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["b"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    save(
        tmp_path / "f.onnx",
        [helper.make_node("Block", ["x"], ["y"], domain="mine")],
        ["N", 1, 8, 8],
        opset=17,
        functions=[block],
        sets=[helper.make_opsetid("mine", 1)],
    )
    model = load_model(tmp_path / "f.onnx")
    assert model.operators == {"Constant": 1, "Conv": 1, "Relu": 1}
    assert model.parameters == 36
    assert "Conv" in {node.op_type for node in prepare(model.data).proto.graph.node}


def test_weights_of_constants_in_another_file_are_taken_in_too(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    proto = save(tmp_path / "m.onnx", nodes, ["N", 4], opset=17)
    onnx.external_data_helper.convert_model_to_external_data(
        proto, location="w.bin", size_threshold=0, convert_attribute=True
    )
    onnx.save(proto, tmp_path / "m.onnx")
    assert (tmp_path / "w.bin").is_file()
    model = load_model(tmp_path / "m.onnx")
    [out] = open_bytes(model.data).run(None, {"x": np.ones((1, 4), np.float32)})
    assert out.tolist() == [[4, 4, 4]]


def test_an_input_without_a_shape_is_refused(tmp_path: Path) -> None:
    proto = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], ["N"], opset=17)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"input x of .* has no shape"):
        load_model(tmp_path / "m.onnx")


@given(data=st.data())
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_model_is_an_error_with_a_sentence_or_still_a_model(
    tmp_path: Path, write_convnet: Callable[..., Path], data: st.DataObject
) -> None:
    path = tmp_path / "damaged.onnx"
    if not path.exists():
        write_convnet(path)
        (tmp_path / "good").write_bytes(path.read_bytes())
    damaged = bytearray((tmp_path / "good").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    path.write_bytes(damaged)
    said = "."
    try:
        load_model(path)
    except EdgemlError as error:
        said = error.what
    assert said.endswith(".")


def one_node(kind: str, domain: str = "", result: int = TensorProto.FLOAT) -> bytes:
    node = helper.make_node(kind, ["x"], ["y"], name="it", domain=domain)
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", result, None)],
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    data: bytes = helper.make_model(graph, opset_imports=sets, ir_version=8).SerializeToString()
    return data


def test_an_operator_that_onnxruntime_lacks_is_left_to_other_runtimes(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(one_node("Own", "mine"))
    assert load_model(tmp_path / "own.onnx").operators == {"Own": 1}


def test_names_that_two_nodes_share_are_told_in_onnxruntimes_words(
    convnet: Path, tmp_path: Path
) -> None:
    proto = onnx.load(convnet)
    for node in proto.graph.node:
        node.name = "node"
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(proto, tmp_path / "same.onnx")
    with pytest.raises(ModelError, match=r"onnxruntime cannot load .*two nodes with same node nam"):
        load_model(tmp_path / "same.onnx")


def test_texts_among_the_outputs_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_floats=[0.0],
                            values_strings=["zero"])  # fmt: skip
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, ["N", 4])],
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), tmp_path / "text.onnx")
    with pytest.raises(ModelError, match=r"The output y of .* holds texts\..* Cut it off"):
        check_inputs(load_model(tmp_path / "text.onnx"))


def test_a_model_that_was_quantized_before_is_refused(convnet: Path, tmp_path: Path) -> None:
    check_float(load_model(convnet))
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(convnet, tmp_path / "int8.onnx")
    model = load_model(tmp_path / "int8.onnx")
    with pytest.raises(
        ModelError, match=r"quantized already\. It has nodes of the types .*Integer"
    ):
        check_float(model)
