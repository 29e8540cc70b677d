"""A model that is fed otherwise than it was trained is found out, and only then."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cloud_sync.evidence import GateResult, Verdict
from converters.loading import load
from converters.mismatch import judge_preprocessing
from converters.progress import Silent
from converters.request import Request
from examples.digits.make_data import main as make_data
from hardware.probes import probe
from hardware.runtimes import open_session

TARGET = "cpu-x86-64" if probe().architecture == "amd64" else "cpu-arm64"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    make_data(["--out", str(folder)])
    return folder


def look(data: Path, out: Path, pipeline: str, **changes: object) -> GateResult:
    request = Request(
        model=EXAMPLE / "digits.onnx",
        pipeline=EXAMPLE / pipeline,
        calibration=str(data / "calibration.npz"),
        evaluation=str(data / "evaluation.npz"),
        name="m",
        version="1",
        out=out,
        targets=(TARGET,),
        **changes,  # type: ignore[arg-type]
    )
    loaded = load(request, Silent())
    with closing(open_session("onnxruntime", request.model)) as session:
        return judge_preprocessing(session, loaded)


def test_a_model_that_is_fed_rightly_is_not_complained_of(digits: Path, tmp_path: Path) -> None:
    told = look(digits, tmp_path, "pipeline.toml")
    assert told.result is not Verdict.FAIL
    assert "No other usual pre-processing is better" in told.reason


def test_a_scale_that_is_applied_twice_is_found_out(digits: Path, tmp_path: Path) -> None:
    found = look(digits, tmp_path, "pipeline-wrong.toml")
    assert (found.name, found.result) == ("pre-processing", Verdict.FAIL)
    assert "multiplied by 255" in found.reason
    assert found.value is not None
    assert found.value < 0.5
    assert found.baseline is not None
    assert found.baseline > 0.9
    assert found.n == 200


def test_it_is_found_out_where_the_scale_is_in_the_model_too(digits: Path, tmp_path: Path) -> None:
    found = look(digits, tmp_path, "pipeline-wrong.toml", fuse=True)
    assert found.result is Verdict.FAIL
    assert "multiplied by 255" in found.reason


def test_a_metric_that_knows_of_no_right_answers_cannot_tell(digits: Path, tmp_path: Path) -> None:
    told = look(digits, tmp_path, "pipeline-wrong.toml", metric="cosine")
    assert told.result is Verdict.UNDECIDED
    assert "cosine knows of no right answers" in told.reason


def test_what_is_no_image_is_left_alone(
    tmp_path: Path, fragile: Path, fragile_data: tuple[Path, Path]
) -> None:
    request = Request(
        model=fragile,
        calibration=str(fragile_data[0]),
        evaluation=str(fragile_data[1]),
        name="m",
        version="1",
        out=tmp_path,
        targets=(TARGET,),
    )
    with closing(open_session("onnxruntime", fragile)) as session:
        told = judge_preprocessing(session, load(request, Silent()))
    assert told.result is Verdict.UNDECIDED
    assert "no images" in told.reason
    assert np.load(fragile_data[1])["x"].ndim == 2
