"""A model that is fed wrongly, a runtime that computes otherwise, integers that are too coarse.

Each of the three costs accuracy in a conversion of its own here; each is named, and only it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from cloud_sync.evidence import Verdict
from cloud_sync.release import Layout
from converters.conversion import convert
from converters.result import ConversionResult
from converters.show import conversion_text
from examples.digits.make_data import main as make_data
from hardware.probes import probe
from tests.needs import module

from .conftest import CLASSES, write_model

TARGET = "cpu-x86-64" if probe().architecture == "amd64" else "cpu-arm64"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"


def run(model: Path, data: Path, out: Path, **more: Any) -> ConversionResult:
    options = {"runtimes": ("onnxruntime",), "min_speedup": 0.0} | more
    return convert(
        model,
        calibration=data / "calibration.npz",
        evaluation=data / "evaluation.npz",
        name="lossy",
        version="1",
        out=out,
        targets=(TARGET,),
        **options,
    )


def save(folder: Path, make: Any) -> Path:
    for name, count, seed in (("calibration", 64, 1), ("evaluation", 400, 2)):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, CLASSES, count)
        np.savez(folder / f"{name}.npz", x=make(rng, labels).astype(np.float32), y=labels)
    return folder


def assert_named(result: ConversionResult, kind: str) -> str:
    """Only this loss is named, in the text, in the object and in the report; its sentence."""
    lost = [loss for loss in result.losses if loss.gate.result is Verdict.FAIL]
    assert {loss.kind for loss in lost} == {kind}
    body = result.summary()
    assert {m["kind"] for m in body["losses"] if m["gate"]["result"] == "fail"} == {kind}
    _, _, text = conversion_text(result).partition("where accuracy is lost:\n")
    assert text.startswith(f"  {kind}")
    assert lost[0].gate.reason in text
    report = (result.path / "report.html").read_text()
    _, _, section = report.partition("<h2>Where accuracy is lost</h2>")
    heading = f"<h3>{kind[0].upper()}{kind[1:]}</h3>"
    failed, _, _ = section.partition("<strong>fail</strong>")
    assert failed.rpartition("<h3>")[2].startswith(heading.removeprefix("<h3>"))
    assert Layout.open(result.path).release().digest == result.release
    return lost[0].gate.reason


@pytest.mark.slow
def test_a_pre_processing_that_is_not_the_trainings(tmp_path: Path) -> None:
    make_data(["--out", str(tmp_path)])
    result = run(
        EXAMPLE / "digits.onnx",
        tmp_path,
        tmp_path / "out",
        pipeline=EXAMPLE / "pipeline-wrong.toml",
        max_drop=0.2,
    )
    reason = assert_named(result, "pre-processing")
    assert "it seems to be fed otherwise than it was trained" in reason
    assert reason in result.warnings
    assert result.exit_code == 4  # nothing rests on a float model that is fed wrongly


@pytest.mark.parametrize("metric", ["top1", "cosine"])
def test_a_runtime_that_computes_something_else(tmp_path: Path, metric: str) -> None:
    """Bytes above 255 wrap on onnxruntime and stay at 255 on OpenVINO; ONNX leaves it open."""
    module("openvino")

    def rows(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        made = rng.uniform(290, 310, (len(labels), CLASSES))
        made[np.arange(len(labels)), labels] = 250
        return made

    nodes = [
        helper.make_node("Cast", ["image"], ["bytes"], name="narrow", to=TensorProto.UINT8),
        helper.make_node("Cast", ["bytes"], ["wide"], name="wide", to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["wide", "w"], ["logits"], name="dense"),
    ]
    model = write_model(tmp_path / "m.onnx", nodes, {"w": np.eye(CLASSES)}, (CLASSES,))
    data = save(tmp_path, rows)
    both = ("onnxruntime", "openvino")
    result = run(model, data, tmp_path / "out", runtimes=both, metric=metric)
    reason = assert_named(result, "conversion")
    assert "a drop of " in reason
    assert {v.runtime for v in result.variants} == {"onnxruntime"}
    left = [c for c in result.left_out if c.runtime == "openvino"]
    assert left
    assert all("float32 itself is worse on this runtime" in c.reason for c in left)


def test_integers_that_are_too_coarse(tmp_path: Path) -> None:
    """What tells the classes apart is a two-thousandth of the largest weight."""

    def rows(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        made = rng.normal(0, 0.05, (len(labels), CLASSES + 1))
        made[:, 0] = rng.uniform(-50, 50, len(labels))
        made[np.arange(len(labels)), labels + 1] += 1
        return made

    weight = np.vstack([np.full((1, CLASSES), 1000.0), 0.5 * np.eye(CLASSES)])
    nodes = [helper.make_node("Gemm", ["image", "w"], ["logits"], name="dense")]
    model = write_model(tmp_path / "m.onnx", nodes, {"w": weight}, (CLASSES + 1,))
    result = run(model, save(tmp_path, rows), tmp_path / "out")
    assert_named(result, "quantization")
    assert {v.precision for v in result.variants} == {"float32"}
    assert "quantization loses too much accuracy" in str(result.float_kept_because)
