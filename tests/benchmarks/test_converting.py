"""What the benchmark counts and times of a conversion: a real one, of a small net."""

from pathlib import Path

import pytest

from benchmarks.converting import convert
from edgeml.errors import ModelError
from tests.converters.conftest import quarters, save_data, write_convnet


def _arguments(folder: Path) -> list[str]:
    calibration, evaluation = save_data(folder, quarters, evaluation=40)
    return [
        *(str(write_convnet(folder / "net.onnx")), "--runtime", "onnxruntime"),
        *("--calibration", str(calibration), "--evaluate", str(evaluation)),
        *("--name", "quarters", "--version", "1", "--target", "cpu"),
    ]


def test_files_are_counted_once_and_every_second_belongs_to_a_step(tmp_path: Path) -> None:
    made = convert(_arguments(tmp_path), tmp_path / "out")
    assert made.files >= 1
    assert made.floats == 0
    assert made.tried == made.files
    assert sum(made.steps.values()) == pytest.approx(made.seconds)
    assert {"starting", "reading", "evaluating", "trying", "racing", "writing"} <= set(made.steps)
    assert made.best["runtime"] == "onnxruntime"


def test_a_conversion_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    arguments = [*_arguments(tmp_path), "--metric", "nonsense"]
    with pytest.raises(ModelError, match="nonsense"):
        convert(arguments, tmp_path / "out")
