"""The example's model and some of its data, to convert for targets that take long."""

from pathlib import Path
from typing import Any

import numpy as np

from converters.conversion import convert
from converters.result import ConversionResult
from examples.digits.make_data import write

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


def few_digits(folder: Path, *, calibration: int, evaluation: int) -> Path:
    """The folder, with so many samples to calibrate and to judge in it."""
    for path, count in zip(write(folder), (calibration, evaluation), strict=True):
        with np.load(path) as arrays:
            cut = {name: arrays[name][:count] for name in arrays.files}
        np.savez(path, **cut)
    return folder


def digits_for(data: Path, out: Path, **options: Any) -> ConversionResult:
    """Convert the example's model, which may lose five points."""
    return convert(
        EXAMPLE / "digits.onnx",
        pipeline=EXAMPLE / "pipeline.toml",
        calibration=data / "calibration.npz",
        evaluation=data / "evaluation.npz",
        name="digits",
        version="1",
        out=out,
        max_drop=0.05,
        **options,
    )
