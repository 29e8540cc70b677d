"""Whatever a model is made of, it ends in a release that serves it, or in a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cloud_sync.release import Layout
from converters.conversion import convert
from converters.result import ConversionResult
from edgeml.errors import ExitCode, ModelError, exit_code_of
from tests import needs

from .odd_models import IMAGE, ODD, Net, image, write_data


def run(model: Path, folder: Path, data: tuple[Path, Path], **more: Any) -> ConversionResult:
    return convert(
        model,
        calibration=data[0],
        evaluation=data[1],
        name="odd",
        version="1",
        out=folder / "out",
        targets=("cpu",),
        min_speedup=0.0,
        **{"runtimes": ("onnxruntime",), "max_drop": 0.1, **more},
    )


@pytest.mark.parametrize("kind", ODD)
def test_a_model_of_any_make_is_served_by_a_variant_that_answers_as_it_does(
    kind: str, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    data = write_data(tmp_path, model, ODD[kind](model))
    result = run(model, tmp_path, data)
    floats = [variant for variant in result.variants if variant.precision == "float32"]
    assert floats
    assert {variant.accuracy.value for variant in floats} == {1.0}
    assert floats[0].file.read_bytes() == model.read_bytes()
    quantized = [variant for variant in result.variants if variant.precision != "float32"]
    for variant in quantized:
        assert variant.accuracy.value >= 0.9
        assert variant.file.read_bytes() != model.read_bytes()
    assert bool(quantized) == (kind != "float64")
    assert Layout.open(result.path).release().digest == result.release


def test_what_nothing_of_can_be_quantized_says_so_in_one_sentence(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    data = write_data(tmp_path, model, ODD["float64"](model))
    said = str(run(model, tmp_path, data).float_kept_because)
    assert "the model cannot be quantized: " in said
    assert said.endswith("other ways were refused too.")
    assert said.count(". ") == 0


def test_nan_among_the_weights_is_refused_before_anything_is_tried(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    net = Net()
    proto = net.save(model, IMAGE, net.classify(net.convolution("x", 3, 8), 8))
    data = write_data(tmp_path, model, image)
    broken = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    broken.flat[0] = np.nan
    name = proto.graph.initializer[0].name
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(broken, name))
    onnx.save(proto, model)
    with pytest.raises(ModelError, match="output is NaN or infinite for evaluation sample 0"):
        run(model, tmp_path, data)


def test_rows_that_a_graph_selects_itself_cannot_be_golden(tmp_path: Path) -> None:
    net = Net()
    rows = net.add("Flatten", "x", axis=0)
    near = net.add("Greater", net.add("Cos", rows), net.constant(0.9999))
    kept = net.add("Cast", net.add("NonZero", near), to=onnx.TensorProto.FLOAT)
    model = tmp_path / "model.onnx"
    net.save(model, {"x": (onnx.TensorProto.FLOAT, [1, 3, 12, 12])}, kept)
    rng = np.random.default_rng(0)
    for split in ("calibration", "evaluation"):
        x = rng.uniform(-0.02, 0.02, (40, 3, 12, 12)).astype(np.float32)
        np.savez(tmp_path / f"{split}.npz", x=x)
    data = (tmp_path / "calibration.npz", tmp_path / "evaluation.npz")
    with pytest.raises(ModelError) as caught:
        run(model, tmp_path, data, metric="cosine")
    assert exit_code_of(caught.value) is ExitCode.BAD_MODEL_OR_DATA
    assert "The model's outputs cannot be kept as golden." in str(caught.value)


def test_scores_that_are_not_the_first_output_are_pointed_at(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    net = Net()
    logits = net.classify(net.convolution("x", 3, 8), 8)
    label = net.add("Cast", net.add("ArgMax", logits, axis=1, keepdims=0), to=1)
    net.save(model, IMAGE, label, logits)
    data = write_data(tmp_path, model, image)
    with pytest.raises(ModelError, match=r"no classifier.* Output 1, counted from 0, is a row of"):
        run(model, tmp_path, data)


def test_a_model_that_no_runtime_runs_says_what_each_of_them_lacks(tmp_path: Path) -> None:
    needs.module("openvino")
    model = tmp_path / "model.onnx"
    net = Net()
    net.nodes.append(onnx.helper.make_node("Own", ["x"], ["y"], name="own", domain="mine"))
    proto = net.save(model, IMAGE, "y")
    proto.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    onnx.save(proto, model)
    rng = np.random.default_rng(0)
    for split in ("calibration", "evaluation"):
        x = np.stack([image(rng)["x"] for _ in range(20)])
        np.savez(tmp_path / f"{split}.npz", x=x, y=np.arange(20) % 5)
    data = (tmp_path / "calibration.npz", tmp_path / "evaluation.npz")
    with pytest.raises(ModelError, match="No runtime here can run") as caught:
        run(model, tmp_path, data, runtimes=())
    assert "onnxruntime: " in caught.value.why
    assert "openvino: " in caught.value.why
    assert caught.value.why.count("mine") >= 2
