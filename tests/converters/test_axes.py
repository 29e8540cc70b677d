"""Free axes are fixed by name, or by the data where a tool needs one size; never by a guess."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.axes import fix_axes, fixed_shapes, free_axes, parse_dims
from converters.dataset import open_dataset
from converters.methods.sessions import open_bytes
from converters.model import FloatModel, load_model
from converters.task import DirectTask
from edgeml.errors import ExitCode, ModelError, UserError, exit_code_of


@pytest.fixture
def pooled(tmp_path: Path) -> FloatModel:
    """Pool an image of a free size (its height named, its width not) beside a vector."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Add", ["f", "v"], ["y"]),
        ],
        "net",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "height", None]),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", 3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    sets = [helper.make_opsetid("", 17)]
    path = tmp_path / "pooled.onnx"
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), path)
    return load_model(path)


def shapes(model: FloatModel) -> list[tuple[int | str, ...]]:
    return [spec.shape for spec in model.inputs]


def test_every_free_axis_is_listed_with_its_name_and_place(pooled: FloatModel) -> None:
    assert [str(axis) for axis in free_axes(pooled.inputs)] == [
        "N (x:0)", "height (x:2)", "x:3", "N (v:0)",
    ]  # fmt: skip


def test_an_axis_is_fixed_by_its_name_wherever_the_name_stands(pooled: FloatModel) -> None:
    fixed = fix_axes(pooled, {"N": 1, "height": 8})
    assert shapes(fixed) == [(1, 3, 8, "?"), (1, 3)]
    assert fixed.outputs[0].shape == (1, 3)


def test_an_axis_without_a_name_is_fixed_by_its_place(pooled: FloatModel) -> None:
    assert shapes(fix_axes(pooled, {"x:3": 9}))[0] == ("N", 3, "height", 9)


def test_a_model_of_a_fixed_size_is_another_model_that_refuses_other_sizes(
    pooled: FloatModel,
) -> None:
    fixed = fix_axes(pooled, {"height": 8})
    assert fixed.digest != pooled.digest
    assert fix_axes(pooled, {}).digest == pooled.digest
    assert fix_axes(pooled, {"x:2": 8}).digest == fixed.digest
    feed = {"x": np.ones((1, 3, 9, 9), np.float32), "v": np.ones((1, 3), np.float32)}
    open_bytes(pooled.data).run(None, feed)
    with pytest.raises(Exception, match="invalid dimensions"):
        open_bytes(fixed.data).run(None, feed)


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ({"width": 8}, r"no free axis width\. Free are: N \(x:0\), height \(x:2\), x:3, N \(v:0\)"),
        ({"?": 8}, r"no free axis \?"),
        ({"x:1": 8}, r"axis x:1 of .* is not free\. It is 3"),
        ({"x:9": 8}, "no free axis x:9"),
        ({"height": 8, "x:2": 9}, r"axis height \(x:2\) two sizes"),
    ],
)
def test_an_axis_that_cannot_be_fixed_is_refused_with_those_that_can(
    pooled: FloatModel, dims: dict[str, int], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        fix_axes(pooled, dims)
    assert exit_code_of(caught.value) is ExitCode.USAGE


def test_a_size_that_the_graph_cannot_have_is_refused_by_onnxruntimes_reason(
    tmp_path: Path,
) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "features"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("w", TensorProto.FLOAT, [4, 2], [0.0] * 8)],
    )
    sets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx")
    assert shapes(fix_axes(model, {"features": 4})) == [("N", 4)]
    with pytest.raises(UserError, match=r"cannot have features=5\."):
        fix_axes(model, {"features": 5})


@pytest.mark.parametrize("text", ["height", "height=", "=3", "height=0", "height=-1", "h=1.5"])
def test_an_option_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"NAME=VALUE"):
        parse_dims([text])


def test_options_are_read_by_their_last_equals_sign() -> None:
    assert parse_dims(["height=320", "x:0:2=4", "a=b=5"]) == {"height": 320, "x:0:2": 4, "a=b": 5}
    with pytest.raises(UserError, match="given twice"):
        parse_dims(["h=3", "h=3"])


def feeds(*sizes: tuple[int, int]) -> list[list[np.ndarray[Any, Any]]]:
    return [[np.zeros((1, 3, *size), np.float32), np.zeros((1, 3), np.float32)] for size in sizes]


def test_samples_of_one_size_decide_the_shapes_for_a_tool_that_needs_them(
    pooled: FloatModel,
) -> None:
    found = fixed_shapes(pooled.inputs, feeds((8, 9), (8, 9)), "the runtime litert")
    assert found == {"x": (1, 3, 8, 9), "v": (1, 3)}


def test_samples_of_several_sizes_leave_it_to_the_user_who_is_told_how(pooled: FloatModel) -> None:
    with pytest.raises(UserError) as caught:
        fixed_shapes(pooled.inputs, feeds((8, 9), (8, 7)), "the runtime litert")
    said = str(caught.value)
    assert "The axis x:3 of the model must be fixed." in said
    assert "9 and 7" in said
    assert "--dim x:3=VALUE" in said


def test_a_trained_model_answers_the_same_with_its_size_fixed(shared_models: Path) -> None:
    model = load_model(shared_models / "ppocr_rec" / "float.onnx")
    names = [str(axis) for axis in free_axes(model.inputs)]
    assert names == ["p2o.DynamicDimension.0 (x:0)", "x:2", "p2o.DynamicDimension.1 (x:3)"]
    fixed = fix_axes(model, {"x:2": 48, "p2o.DynamicDimension.1": 160})
    assert fixed.inputs[0].shape == ("p2o.DynamicDimension.0", 3, 48, 160)
    line = np.random.default_rng(0).uniform(-1, 1, (1, 3, 48, 160)).astype(np.float32)
    wanted, given = (open_bytes(one.data).run(None, {"x": line})[0] for one in (model, fixed))
    np.testing.assert_allclose(given, wanted, atol=1e-5)


def test_a_batch_axis_that_was_fixed_says_to_leave_that_out(
    convnet: Path, quarters_data: tuple[Path, Path]
) -> None:
    data = open_dataset(quarters_data[0], ("image",))
    for size in (1, 8):
        task = DirectTask(fix_axes(load_model(convnet), {"N": size}))
        if size == 1:
            task.check(data)
            continue
        with pytest.raises(
            ModelError, match=r"batch axis of input image is fixed to 8\."
        ) as caught:
            task.check(data)
        assert "Leave out a --dim that fixes it" in caught.value.fix
