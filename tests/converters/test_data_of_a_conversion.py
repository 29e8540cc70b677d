"""What a conversion says of data that would deceive it: repeated samples, another scale."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cloud_sync.evidence import Verdict
from cloud_sync.golden import decode_golden
from cloud_sync.release import Layout
from converters.conversion import convert
from converters.progress import Silent
from converters.result import ConversionResult
from edgeml.errors import ExitCode, ModelError, exit_code_of

Data = tuple[Path, Path]


class Told(Silent):
    """What a conversion said while it ran."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, what: str, total: int = 0) -> None:
        self.lines.append(what)

    def note(self, what: str) -> None:
        self.lines.append(what)


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


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (lambda y: y + 1, "The label of sample .* is out of range. It is 4; .* Number the classes"),
        (lambda y: y - 1, "The label of sample .* is out of range. It is -1;"),
        (lambda y: y.astype(np.float32), r"They are float32 .* Save y\.astype\(int\)"),
        (lambda y: y[:, None], r"do not fit the metric top1.* Save y\.reshape\(len\(y\)\)"),
        (lambda y: np.eye(4)[y], r"one-hot rows, save y\.argmax\(axis=1\)"),
        (lambda y: y.astype(str), "They are texts; it takes one class number a sample"),
        (lambda y: y[:-1], "Samples and labels in .* do not match. x holds 400 samples, y 399"),
    ],
    ids=["from 1", "below 0", "floats", "a column", "one-hot", "texts", "too few"],
)
def test_labels_that_do_not_fit_are_the_datas_fault_and_no_runtimes(
    convnet: Path,
    quarters_data: Data,
    tmp_path: Path,
    labels: Callable[[np.ndarray], np.ndarray],
    words: str,
) -> None:
    with np.load(quarters_data[1]) as arrays:
        np.savez(quarters_data[1], x=arrays["x"], y=labels(arrays["y"]))
    told = Told()
    with pytest.raises(ModelError, match=words) as caught:
        convert(
            convnet,
            calibration=quarters_data[0],
            evaluation=quarters_data[1],
            name="toy",
            version="1",
            out=tmp_path / "out",
            targets=("cpu",),
            progress=told,
        )
    assert exit_code_of(caught.value) is ExitCode.BAD_MODEL_OR_DATA
    assert not [line for line in told.lines if "onnxruntime is left" in line or "openvino" in line]
    assert not (tmp_path / "out").exists()
