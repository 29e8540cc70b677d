"""A model is checked before any work: what is no model says so in one sentence."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from converters.model import load_model, the_input
from edgeml.errors import EdgemlError, ExitCode, ModelError, exit_code_of
from hardware.runtimes.interface import TensorSpec


def test_a_model_is_described_as_it_is(convnet: Path) -> None:
    model = load_model(convnet)
    assert the_input(model) == TensorSpec(name="image", shape=("N", 1, 12, 12), dtype="float32")
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
        helper.make_graph([node], "net", [], [out]), ir_version=8
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


def two_inputs(path: Path, batch: int | str = "N") -> Path:
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 4]) for n in "ab"]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "net", inputs, [out])
    onnx.save(helper.make_model(graph, ir_version=8), path)
    return path


def test_a_model_with_two_inputs_is_refused_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="They are a, b"):
        the_input(load_model(two_inputs(tmp_path / "two.onnx")))


def test_a_batch_axis_fixed_to_another_number_than_one_is_refused(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [x], [y])
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "eight.onnx")
    with pytest.raises(ModelError, match="fixed to 8"):
        the_input(load_model(tmp_path / "eight.onnx"))


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
