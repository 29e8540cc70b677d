"""Static quantization: right ranges, the same bytes each time, refusals instead of no-ops."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from converters.recipe import Method, Parameters, Rule, static_qdq
from edgeml.errors import ModelError

from .given_ranges import Range, calibrate, prepare, quantize

IMAGES = np.random.default_rng(5).normal(0, 1, (8, 1, 12, 12)).astype(np.float32)


def feeds(images: np.ndarray = IMAGES) -> list[list[np.ndarray]]:
    return [[image[None]] for image in images]


def run(model: bytes, images: np.ndarray = IMAGES) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(model).graph.node]


def test_preparing_folds_the_batch_norm_and_leaves_the_outputs(convnet: Path) -> None:
    prepared = prepare(convnet.read_bytes())
    assert "BatchNormalization" not in [node.op_type for node in prepared.graph.node]
    np.testing.assert_allclose(
        run(prepared.SerializeToString()), run(convnet.read_bytes()), rtol=1e-4, atol=1e-5
    )


def test_ranges_are_the_extremes_over_all_samples(convnet: Path) -> None:
    ranges = calibrate(prepare(convnet.read_bytes()), feeds())
    assert ranges["image"] == Range(float(IMAGES.min()), float(IMAGES.max()))
    outputs = run(convnet.read_bytes())
    assert ranges["logits"].low == pytest.approx(outputs.min(), rel=1e-4)
    assert ranges["logits"].high == pytest.approx(outputs.max(), rel=1e-4)


@pytest.mark.parametrize("flavour", ["u8s8", "u8s8-reduced", "s8s8"])
def test_the_quantized_model_answers_like_the_float_model(convnet: Path, flavour: str) -> None:
    prepared = prepare(convnet.read_bytes())
    quantized = quantize(prepared, calibrate(prepared, feeds()), static_qdq(flavour))
    assert quantized.nodes == 2
    expected, got = run(convnet.read_bytes()), run(quantized.data)
    assert np.abs(got - expected).max() < 0.06 * np.ptp(expected)


def test_weights_of_the_reduced_flavour_stay_within_seven_bits(convnet: Path) -> None:
    prepared = prepare(convnet.read_bytes())
    ranges = calibrate(prepared, feeds())
    for flavour, limit in [("u8s8", 127), ("u8s8-reduced", 64)]:
        model = onnx.load_model_from_string(quantize(prepared, ranges, static_qdq(flavour)).data)
        weights = [
            onnx.numpy_helper.to_array(t)
            for t in model.graph.initializer
            if t.data_type == TensorProto.INT8 and len(t.dims) > 1
        ]
        assert weights
        assert max(np.abs(w.astype(int)).max() for w in weights) == limit


def test_scores_of_the_last_product_are_not_rounded_to_eight_bits(convnet: Path) -> None:
    prepared = prepare(convnet.read_bytes())
    quantized = quantize(prepared, calibrate(prepared, feeds()), static_qdq("u8s8"))
    assert operators(quantized.data)[-1] == "Gemm"


def test_an_old_operator_set_is_raised_to_one_with_scales_per_channel(
    tmp_path: Path, write_convnet: Callable[..., Path]
) -> None:
    prepared = prepare(write_convnet(tmp_path / "old.onnx", opset=11).read_bytes())
    assert prepared.opset_import[0].version == 13
    quantized = quantize(prepared, calibrate(prepared, feeds()), static_qdq("u8s8"))
    assert run(quantized.data).shape == (8, 4)


def test_rules_keep_the_nodes_they_name_in_float(convnet: Path) -> None:
    prepared = prepare(convnet.read_bytes())
    ranges = calibrate(prepared, feeds())
    kept = (*static_qdq("u8s8"), Rule(scope="conv", method=Method.FLOAT32))
    assert quantize(prepared, ranges, kept).nodes == 1


def test_rules_that_quantize_nothing_are_refused(convnet: Path) -> None:
    prepared = prepare(convnet.read_bytes())
    ranges = calibrate(prepared, feeds())
    for rules in [
        (Rule(method=Method.FLOAT32),),
        (Rule(operators=("LSTM",), method=Method.STATIC_QDQ),),
        (Rule(operators=("Flatten",), method=Method.STATIC_QDQ),),
    ]:
        with pytest.raises(ModelError, match="quantizes nothing"):
            quantize(prepared, ranges, rules)


def test_rules_with_two_sets_of_parameters_are_refused(convnet: Path) -> None:
    prepared = prepare(convnet.read_bytes())
    rules = (
        Rule(operators=("Conv",), method=Method.STATIC_QDQ),
        Rule(
            operators=("Gemm",),
            method=Method.STATIC_QDQ,
            parameters=Parameters(activation="int8"),
        ),
    )
    with pytest.raises(ModelError, match="mixes"):
        quantize(prepared, calibrate(prepared, feeds()), rules)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [(Parameters(weight="int4"), "int4"), (Parameters(calibration="entropy"), "entropy")],
)
def test_parameters_that_are_not_known_are_refused_by_name(
    convnet: Path, parameters: Parameters, words: str
) -> None:
    prepared = prepare(convnet.read_bytes())
    rules = (Rule(method=Method.STATIC_QDQ, parameters=parameters),)
    with pytest.raises(ModelError, match=words):
        quantize(prepared, calibrate(prepared, feeds()), rules)


def test_a_tensor_that_overflows_is_named(convnet: Path) -> None:
    prepared = prepare(convnet.read_bytes())
    with pytest.raises(ModelError, match="The tensor image overflows"):
        quantize(prepared, {"image": Range(-1, float("inf"))}, static_qdq("u8s8"))


def test_calibrating_with_nothing_is_refused(convnet: Path) -> None:
    with pytest.raises(ModelError, match="nothing to calibrate with"):
        calibrate(prepare(convnet.read_bytes()), [])


def test_an_operator_that_onnxruntime_does_not_know_is_an_error_with_its_name() -> None:
    node = helper.make_node("Teleport", ["image"], ["logits"], domain="space")
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])
    model = helper.make_model(
        helper.make_graph([node], "net", [value], [out]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("space", 1)],
        ir_version=8,
    )
    with pytest.raises(ModelError, match="Teleport"):
        prepare(model.SerializeToString())


AGAIN = """
import hashlib, sys, numpy as np
from pathlib import Path
from tests.converters.given_ranges import calibrate, prepare, quantize
from converters.recipe import static_qdq
images = np.random.default_rng(5).normal(0, 1, (8, 1, 12, 12)).astype(np.float32)
prepared = prepare(Path(sys.argv[1]).read_bytes())
ranges = calibrate(prepared, ([i[None]] for i in images))
print(hashlib.sha256(quantize(prepared, ranges, static_qdq("u8s8")).data).hexdigest())
"""


def test_two_processes_with_other_hash_seeds_write_the_same_bytes(convnet: Path) -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-W", "error", "-c", AGAIN, str(convnet)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
