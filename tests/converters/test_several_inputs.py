"""A model with several inputs goes the whole way: data, search, golden set, a device's test."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloud_sync.evidence import Verdict
from cloud_sync.golden import decode_golden, encode_golden
from cloud_sync.release import Layout, Variant
from converters.axes import fix_axes
from converters.conversion import convert
from converters.model import load_model
from converters.recipe import Recipe, parse_recipe
from converters.result import ConversionResult
from edgeml.errors import ModelError, UserError

from .replaying import read, replay

SIZE, CLASSES = 8, 4


def write_net(path: Path) -> Path:
    """Which quarter is bright, by convolution; a vector beside the image turns the answer."""
    rng = np.random.default_rng(3)
    half, channels = SIZE // 2, 12
    dense = np.zeros((channels * 4 + 2, CLASSES))
    for quarter in range(4):
        dense[quarter : channels * 4 : 4, quarter] = 1 / channels
    dense[-2:, :2] = np.eye(2)
    constants = {"w": np.abs(rng.normal(0.3, 0.05, (channels, 1, 3, 3))), "d": dense}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("AveragePool", ["r"], ["p"], name="pool", kernel_shape=[half, half],
                         strides=[half, half]),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Concat", ["f", "facts"], ["both"], name="join", axis=1),
        helper.make_node("MatMul", ["both", "d"], ["logits"], name="dense"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("facts", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIZE, "width"]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )
    sets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), path)
    return path


def samples(count: int, seed: int) -> dict[str, np.ndarray]:
    """Bright quarters, except where the facts say that it is class 0 or 1."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    image = rng.normal(0, 0.1, (count, 1, SIZE, SIZE)).astype(np.float32)
    facts = np.zeros((count, 2), np.float32)
    half = SIZE // 2
    for index, label in enumerate(y):
        row, column = divmod(int(label), 2)
        if label < 2 and index % 2:
            facts[index, label] = 4
        else:
            image[index, 0, row * half :, column * half :][:half, :half] += 1
    return {"image": image, "facts": facts, "y": y}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ConversionResult:
    folder = tmp_path_factory.mktemp("two")
    calibration, evaluation = samples(32, 1), samples(400, 2)
    del calibration["y"]
    np.savez(folder / "calibration.npz", **calibration)
    np.savez(folder / "evaluation.npz", **evaluation)
    return convert(
        write_net(folder / "net.onnx"),
        calibration=folder / "calibration.npz",
        evaluation=folder / "evaluation.npz",
        name="two",
        version="1",
        out=folder / "out",
        targets=("cpu",),
        runtimes=("onnxruntime",),
        dims={"width": SIZE},
        min_speedup=0.0,
    )


def test_it_is_converted_judged_and_quantized(made: ConversionResult) -> None:
    assert {v.precision for v in made.variants} == {"float32", "int8"}
    assert all(v.accuracy.value > 0.98 for v in made.variants)


def test_its_golden_set_holds_every_input_in_the_models_order(made: ConversionResult) -> None:
    golden = decode_golden(read(made.path, made_variant(made), "golden"))
    assert golden.inputs.shape == (32, 2)
    assert [array.shape for array in golden.more_inputs] == [(32, 1, SIZE, SIZE)]
    assert encode_golden(golden) == read(made.path, made_variant(made), "golden")


def test_a_device_replays_it_and_finds_what_was_recorded(made: ConversionResult) -> None:
    for variant in Layout.open(made.path).release().variants:
        result = replay(made.path, variant, with_pipeline=False)
        assert result.error == ""
        assert result.gates[0].result is Verdict.PASS
        assert result.golden is not None
        assert (result.golden.samples, result.golden.max_difference) == (32, 0.0)


def test_the_axis_that_was_fixed_is_fixed_in_the_release_and_its_recipe(
    made: ConversionResult, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(read(made.path, made_variant(made), "model"))
    model = load_model(tmp_path / "model.onnx")
    assert [spec.shape for spec in model.inputs] == [("N", 2), ("N", 1, SIZE, SIZE)]
    recipe = decode_recipe(made)
    assert recipe.inputs.dims == {"width": SIZE}
    assert (
        recipe.inputs.model
        == fix_axes(load_model(write_net(tmp_path / "n.onnx")), {"width": SIZE}).digest
    )


def test_inputs_of_another_name_are_refused_with_those_wanted(tmp_path: Path) -> None:
    data = samples(8, 1)
    np.savez(tmp_path / "c.npz", image=data["image"], fact=data["facts"])
    with pytest.raises(ModelError, match=r"no array facts in .*has the inputs facts, image"):
        convert_with(tmp_path, tmp_path / "c.npz")


def test_a_pipeline_makes_one_input_only(tmp_path: Path) -> None:
    pipeline = tmp_path / "p.toml"
    pipeline.write_text('version = 1\nlabels = ["a"]\n')
    with pytest.raises(ModelError, match=r"makes one input, the model wants 2"):
        convert_with(tmp_path, tmp_path / "c.npz", pipeline=pipeline)


def test_an_axis_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no free axis height.*width \(image:3\)"):
        convert_with(tmp_path, tmp_path / "c.npz", dims={"height": 8})


def convert_with(folder: Path, data: Path, **more: object) -> None:
    convert(
        write_net(folder / "net.onnx"),
        calibration=data,
        evaluation=data,
        name="two",
        version="1",
        out=folder / "out",
        targets=("cpu",),
        **more,
    )


def made_variant(made: ConversionResult) -> Variant:
    return Layout.open(made.path).release().variants[0]


def decode_recipe(made: ConversionResult) -> Recipe:
    return parse_recipe(read(made.path, made_variant(made), "recipe"))
