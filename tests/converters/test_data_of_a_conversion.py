"""What a conversion says of data that would deceive it: repeated samples, another scale."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cloud_sync.evidence import Verdict
from cloud_sync.golden import decode_golden
from cloud_sync.release import Layout
from converters.conversion import convert
from converters.result import ConversionResult
from edgeml.errors import ExitCode

Data = tuple[Path, Path]


def run(model: Path, data: Data, out: Path) -> ConversionResult:
    return convert(
        model,
        calibration=data[0],
        evaluation=data[1],
        out=out,
        targets=("cpu",),
        min_speedup=0.0,
        name="toy",
        version="1.0.0",
        runtimes=("onnxruntime",),
    )


def test_repeated_evaluation_samples_prove_nothing_more(
    convnet: Path, tmp_path: Path, make_quarters: Callable[..., Data]
) -> None:
    data = make_quarters(evaluation=60)
    with np.load(data[1]) as arrays:
        x, y = arrays["x"], arrays["y"]
    np.savez(data[1], x=np.repeat(x, 10, axis=0), y=np.repeat(y, 10))
    result = run(convnet, data, tmp_path / "out")
    assert "540 of 600 evaluation samples repeat others: each counts once." in result.warnings
    assert result.exit_code is ExitCode.GATE_UNDECIDED
    gate = result.left_out[0].gates[0]
    assert (gate.result, gate.n) == (Verdict.UNDECIDED, 60)
    assert {variant.accuracy.n for variant in result.variants} == {60}
    layout = Layout.open(result.path)
    blob = layout.release().variants[0].file("golden").digest
    golden = decode_golden(layout.blobs.path(blob).read_bytes())
    assert golden.labels is not None
    for sample, label in zip(golden.inputs, golden.labels, strict=True):
        [where] = [i for i, each in enumerate(x) if np.array_equal(each, sample)]
        assert label == y[where]


def test_calibration_that_was_prepared_otherwise_is_said(
    convnet: Path, quarters_data: Data, tmp_path: Path
) -> None:
    with np.load(quarters_data[0]) as arrays:
        np.savez(quarters_data[0], x=arrays["x"] * np.float32(255))
    result = run(convnet, quarters_data, tmp_path / "out")
    [said] = [w for w in result.warnings if "prepared alike" in w]
    assert said.startswith("Calibration: The input image is from ")
    assert result.calibration is not None
    assert len(result.calibration.input_warnings) == 1
