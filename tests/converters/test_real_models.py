"""Trained models from outside: what the converter makes of them on real data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_sync.evidence import Verdict
from converters.conversion import convert
from converters.recipe import static_qdq
from converters.result import ConversionResult
from edgeml.errors import ModelError

from .given_ranges import calibrate, prepare, quantize


def real(folder: Path, out: Path) -> Path:
    """Save a folder's data in its model's input layout, as its spec.json says."""
    spec = json.loads((folder / "spec.json").read_text())
    for split in ("calibration", "dev"):
        with np.load(folder / f"{split}.npz") as arrays:
            x = arrays["x"].astype(np.float32)
            for step in spec["preprocessing"]:
                if step["op"] == "affine":
                    x = (x * step["mul"] + step["add"]).astype(np.float32)
            labels = {"y": arrays["y"]} if "y" in arrays else {}
            np.savez(out / f"{split}.npz", x=x, **labels)
    return out


def run(model: Path, data: Path, **more: Any) -> ConversionResult:
    return convert(
        model,
        calibration=data / "calibration.npz",
        evaluation=data / "dev.npz",
        name="real",
        version="1",
        out=data / "out",
        targets=("cpu",),
        **({"min_speedup": 0.0} | more),
    )


def test_keyword_spotting_keeps_its_accuracy_within_three_points(
    shared_models: Path, tmp_path: Path
) -> None:
    folder = shared_models / "kws_dscnn"
    result = run(folder / "float.onnx", real(folder, tmp_path), max_drop=0.03)
    assert {v.precision for v in result.variants} == {"float32", "int8"}
    baseline = next(v for v in result.variants if v.precision == "float32")
    assert baseline.accuracy.value == pytest.approx(359 / 397, abs=1e-4)  # one of 398 is a repeat
    assert "1 of 398 evaluation samples" in " ".join(result.warnings)


def test_a_hundred_images_cannot_decide_on_one_point(shared_models: Path, tmp_path: Path) -> None:
    folder = shared_models / "cifar_resnet8"
    result = run(folder / "float.onnx", real(folder, tmp_path), runtimes=("onnxruntime",))
    verdicts = {gate.result for out in result.left_out for gate in out.gates[:1]}
    assert verdicts == {Verdict.UNDECIDED}
    assert result.exit_code == 4


def test_a_recurrent_net_whose_only_gain_is_its_last_layer_stays_in_float(
    shared_models: Path, tmp_path: Path
) -> None:
    folder = shared_models / "mnist_lstm"
    # Twice: no machine's int8 last layer halves the time of a net that is its recurrent layer.
    result = run(folder / "float.onnx", real(folder, tmp_path), min_speedup=2.0)
    assert {v.precision for v in result.variants} == {"float32"}
    assert result.exit_code == 0
    assert "not shown to be faster" in str(result.float_kept_because)


def test_a_detector_is_refused_as_a_classifier_by_its_output(
    shared_models: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for split in ("calibration", "dev"):
        x = rng.uniform(0, 255, (3, 3, 320, 320)).astype(np.float32)
        np.savez(tmp_path / f"{split}.npz", x=x, y=np.zeros(3, int))
    with pytest.raises(ModelError, match=r"no classifier.*1600"):
        run(shared_models / "yunet" / "float.onnx", tmp_path)


def test_a_model_of_an_old_operator_set_and_a_residual_net_can_be_quantized(
    shared_models: Path,
) -> None:
    rng = np.random.default_rng(0)
    for name, shape in [("yunet", (1, 3, 320, 320)), ("cifar_resnet20", (1, 3, 32, 32))]:
        prepared = prepare((shared_models / name / "float.onnx").read_bytes())
        feeds = [[rng.uniform(0, 255, shape).astype(np.float32)]]
        made = quantize(prepared, calibrate(prepared, feeds), static_qdq("u8s8"))
        assert made.nodes >= 20
