"""Other quantizers, each run as its documentation says, in a process of its own.

`seconds` is what somebody who runs the quantizer waits for: a script that is started, imports
it, reads the data and writes the file. `call_seconds` is the call alone.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.shared_models import SharedModel
from converters.toolchains.exchange import ask
from converters.toolchains.store import require
from edgeml.errors import ToolchainError

RUNTIMES = ("onnxruntime", "openvino")  # what their files are meant for
STATIC = "quantize_static"
_MOST_S = 600.0


class Quantized(msgspec.Struct, frozen=True):
    """A file that a quantizer made, and what it took."""

    maker: str
    path: Path
    seconds: float
    call_seconds: float


class Omitted(msgspec.Struct, frozen=True):
    """A quantizer that made nothing, and why."""

    maker: str
    why: str


def quantized(
    model: SharedModel, calibration: Path, evaluation: Path, out: Path
) -> Iterator[Quantized | Omitted]:
    """What each quantizer makes of a model, one after the other.

    Args:
        model: the float model and its metric.
        calibration: `.npz` with `x` in the model's layout.
        evaluation: the same with `y`, for those that control accuracy.
        out: the folder for their files.
    """
    makers: Mapping[str, Callable[[Path], float]] = {
        STATIC: lambda path: _static(model, calibration, path, prepares=False),
        f"{STATIC}+prepared": lambda path: _static(model, calibration, path, prepares=True),
        "nncf": lambda path: _nncf(model, calibration, None, path),
        "nncf+accuracy-control": lambda path: _nncf(model, calibration, evaluation, path),
    }
    for maker, make in makers.items():
        path = out / f"{maker}.onnx"
        begun = time.perf_counter()
        try:
            call = make(path)
        except subprocess.TimeoutExpired:
            yield Omitted(maker, f"it takes over {_MOST_S:.0f} s")
        except subprocess.CalledProcessError as error:
            lines = str(error.stderr).strip().splitlines() or ["it fails without a word"]
            yield Omitted(maker, lines[-1][:200])
        except ToolchainError as error:
            yield Omitted(maker, f"{error.what} {error.why}".strip()[:200])
        else:
            yield Quantized(maker, path, time.perf_counter() - begun, call)


def static_seconds(model: SharedModel, calibration: Path, path: Path) -> float | None:
    """What a script with `quantize_static` takes once more; None where it fails."""
    begun = time.perf_counter()
    try:
        _static(model, calibration, path, prepares=False)
    except subprocess.SubprocessError:
        return None
    return time.perf_counter() - begun


def _static(model: SharedModel, calibration: Path, path: Path, *, prepares: bool) -> float:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.quantizers"),
            *(str(model.file), str(calibration), str(path), str(int(prepares))),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=_MOST_S,
    )
    return float(done.stdout.strip().splitlines()[-1])


def _nncf(model: SharedModel, calibration: Path, evaluation: Path | None, path: Path) -> float:
    """NNCF in its toolchain; with evaluation data its accuracy control, which knows top1 alone."""
    if evaluation is not None and model.metric != "top1":
        raise ToolchainError("It is run on top1 alone here.")
    request: dict[str, Any] = {
        "model": str(model.file),
        "output": str(path),
        "calibration": str(calibration),
        "method": "quantize" if evaluation is None else "quantize_with_accuracy_control",
    }
    if evaluation is not None:
        request |= {"evaluation": str(evaluation), "max_drop": 0.01}
    return float(ask(require("nncf"), request, timeout_s=_MOST_S)["seconds"])


def _quantize_static(model: str, calibration: str, out: str, prepares: str) -> None:
    """Onnxruntime's quantizer as its documentation calls it; prints the seconds of the call."""
    import numpy as np
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static

    with np.load(calibration) as arrays:
        x = arrays["x"]
    graph = onnx.load(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    name = next(value.name for value in graph.input if value.name not in constants)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[np.ndarray] = iter(x)

        def get_next(self) -> dict[str, np.ndarray] | None:
            sample = next(self._left, None)
            return None if sample is None else {name: sample[None]}

    begun = time.perf_counter()
    if prepares == "1":
        quant_pre_process(model, f"{out}.prepared", skip_symbolic_shape=True)
        model = f"{out}.prepared"
    quantize_static(model, out, Reader())
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    _quantize_static(*sys.argv[1:])
