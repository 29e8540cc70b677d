"""Which layers lose sums on a processor without VNNI, computed without one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloud_sync.evidence import Verification
from converters.toolchains.saturation import (
    VERIFICATION,
    measure_saturation,
    risky_layers,
    saturating_dot,
    saturation_evidence,
)
from edgeml.errors import ModelError


def dense(weight: np.ndarray, *, zero_point: np.ndarray | None = None) -> onnx.ModelProto:
    """A quantized matrix product of uint8 inputs, as QDQ."""
    zero = np.uint8(0) if zero_point is None else zero_point
    constants = {
        "one": np.float32(1),
        "zero": zero,
        "w": weight,
        "w_zero": np.zeros((), weight.dtype),
    }
    data = TensorProto.INT8 if zero.dtype == np.int8 else TensorProto.UINT8
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["x", "one", "zero"], ["a"]),
            helper.make_node("DequantizeLinear", ["w", "one", "w_zero"], ["b"]),
            helper.make_node("MatMul", ["a", "b"], ["y"], name="dense"),
        ],
        "net",
        [helper.make_tensor_value_info("x", data, ["N", len(weight)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def column(*values: int) -> np.ndarray:
    return np.array(values, np.int8)[:, None]


def test_it_is_a_proxy() -> None:
    assert VERIFICATION is Verification.CPU_PROXY


def test_a_pair_saturates_at_16_bits() -> None:
    data = np.array([[[255, 255], [1, 1]]])
    weight = np.array([[[127, 127], [1, 1]], [[-128, -128], [0, 0]]])
    saturating, exact = saturating_dot(data, weight)
    assert exact.tolist() == [[64770 + 2, -65280]]
    assert saturating.tolist() == [[32767 + 2, -32768]]


def test_large_weights_that_are_neighbours_are_at_risk() -> None:
    (layer,) = risky_layers(dense(column(127, 100, 0, 0)))
    assert (layer.node, layer.operator) == ("dense", "MatMul")
    assert layer.largest_pair == 255 * 227
    assert layer.channels == 1


@pytest.mark.parametrize(
    "weight",
    [
        column(127, 0, 127, 0),  # each pair holds one
        column(0, 127, 127, 0),  # they are neighbours, but of different pairs
        column(127, -127, 127, -127),  # signs cancel
        column(64, 64, 64, 64),  # seven bits
    ],
)
def test_weights_that_never_meet_in_a_pair_are_not_at_risk(weight: np.ndarray) -> None:
    assert risky_layers(dense(weight)) == ()


def test_signed_data_and_unsigned_weights_are_not_at_risk() -> None:
    large = column(127, 127, 127, 127)
    assert risky_layers(dense(large, zero_point=np.int8(0))) == ()
    assert risky_layers(dense(large.astype(np.uint8))) == ()


def test_only_samples_that_are_large_enough_saturate() -> None:
    model = dense(column(127, 127))
    dark = measure_saturation(model, [[np.full((4, 2), 100, np.uint8)]])
    assert (dark[0].share, dark[0].loss) == (0.0, 0.0)
    half = np.array([[100, 100], [255, 255]], np.uint8)
    (bright,) = measure_saturation(model, [[half]])
    assert bright.share == 0.5
    lost, exact = 64770 - 32767, np.hypot(64770, 25400)
    assert bright.loss == pytest.approx(lost / exact)


def test_a_sample_that_does_not_fit_is_a_sentence() -> None:
    with pytest.raises(ModelError, match="does not run on a sample"):
        measure_saturation(dense(column(127, 127)), [[np.zeros((1, 3), np.uint8)]])


def test_a_real_network_is_at_risk_until_its_weights_keep_to_seven_bits(
    shared_models: Path, tmp_path: Path
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    x = np.load(shared_models / "cifar_resnet20" / "calibration.npz")["x"][:4]
    mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = ((x / 255 - mean) / spread).transpose(0, 3, 1, 2).astype(np.float32)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([{"input": image[None]} for image in images])

        def get_next(self) -> dict | None:
            return next(self.feeds, None)

    models = {}
    for reduced in (False, True):
        path = tmp_path / f"{reduced}.onnx"
        quantize_static(
            shared_models / "cifar_resnet20" / "float.onnx",
            path,
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=reduced,
        )
        models[reduced] = onnx.load(path)
    assert risky_layers(models[True]) == ()
    samples = [[image[None]] for image in images]
    assert measure_saturation(models[True], samples) == ()
    assert len(risky_layers(models[False])) > 10
    worst = measure_saturation(models[False], samples)[0]
    assert worst.node == "/conv1/Conv"
    assert worst.share > 0.05


def test_evidence_names_the_layer_that_loses_most_and_that_it_was_computed(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(dense(column(127, 127, 1, 1)), path)
    large, small = np.full((1, 4), 255, np.uint8), np.full((1, 4), 10, np.uint8)
    found = saturation_evidence(path, [[large], [small]])
    assert found is not None
    assert (found.at_risk, found.samples, found.share) == (1, 2, 0.5)
    assert found.verification is Verification.CPU_PROXY
    assert 0.4 < found.loss < 0.6
    assert "worst in dense, 50 % of its outputs" in str(found)
    unhurt = saturation_evidence(path, [[small]])
    assert unhurt is not None
    assert (unhurt.layers, unhurt.loss) == ((), 0.0)
    assert "none did on 1 samples" in str(unhurt)


def test_a_file_that_cannot_saturate_gives_no_evidence(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(dense(column(63, 63, 1, 1)), path)
    assert saturation_evidence(path, [[np.full((1, 4), 255, np.uint8)]]) is None
    other = tmp_path / "net.tflite"
    other.write_bytes(b"")
    assert saturation_evidence(other, []) is None
