"""What `edgeml convert` makes of trained models, beside other quantizers and float32.

For each model: edgeml converts it with the commands' own defaults (accuracy within one point
at 95 % confidence, at least 1.1 x float32); onnxruntime's `quantize_static` with its documented
defaults makes its file, with and without its pre-processing. Then all files run in turns, each
in a process of its own, on every runtime here that can run them, and are judged by the same
metric and the same paired test. NNCF takes part where its toolchain is installed (`edgeml
toolchain install nncf`). `M.accuracy_drop_points` is in points, its spread the interval
at 95 %. The data are of `benchmarks.shared_models`; without them there is nothing to measure.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.measure import Row, main, quartiles, versions
from benchmarks.shared_models import SharedModel, models_folder, shared_models
from cloud_sync.evidence import Verdict
from converters.arena import Arena, Judged, Lane, Timing
from converters.cache import Cache
from converters.conversion import run as convert
from converters.executor import LocalExecutor
from converters.gates import metric_gate
from converters.loading import Loaded, load
from converters.methods import observe, prepare
from converters.progress import Silent
from converters.request import Request
from converters.toolchains.exchange import ask
from converters.toolchains.store import require
from converters.workshop import FLOAT_RULES, Artifact
from edgeml.errors import ModelError, ToolchainError

_QUICK = ("kws_dscnn", "cifar_resnet20")
_NOTHING = Cache(None)
_AS_FAST = 0.97  # the same lane raced against itself comes out between this and its inverse


class Told(Silent):
    """Counts what the search tried."""

    def __init__(self) -> None:
        self.tried = 0

    def step(self, what: str, total: int = 0) -> None:  # noqa: ARG002 -- the protocol's
        """Count a candidate."""
        self.tried += what.startswith("Trying ")


class Entry(msgspec.Struct, frozen=True):
    """A file that somebody made of a model; `seconds` is what it took."""

    maker: str
    artifact: Artifact
    seconds: float


def measure(quick: bool) -> list[Row]:
    """All rows; a few models only where `quick`."""
    folder = models_folder()
    if folder is None:
        print("benchmarks.convert_cpu: no models; set EDGEML_MODELS.", file=sys.stderr)
        return []
    rows = []
    for model in shared_models(folder):
        if not quick or model.name in _QUICK:
            with tempfile.TemporaryDirectory(prefix="edgeml-bench-") as out:
                rows += _rows_of(model, Path(out), quick)
    return [*rows, _calibration_memory(quick)]


def _rows_of(model: SharedModel, out: Path, quick: bool) -> list[Row]:
    calibration, evaluation = model.write_data(out)
    request = Request(
        model=model.file,
        calibration=str(calibration),
        evaluation=str(evaluation),
        name="model",
        version="1",
        out=out / "release",
        targets=(_target(),),
        metric=model.metric,
    )
    progress, begun = Told(), time.perf_counter()
    result = convert(request, progress, _NOTHING)
    taken = time.perf_counter() - begun
    loaded = load(request, Silent())
    best = result.variants[0]
    ours = Lane(_artifact("edgeml", best.file), best.runtime)
    floats = [
        Lane(_artifact("float32", model.file), runtime) for runtime in loaded.plan.all_runtimes
    ]
    peers = _peers(model, calibration, evaluation, out)
    with closing(Arena(LocalExecutor(), loaded, _NOTHING, Silent())) as arena:
        lanes = [Lane(peer.artifact, lane.runtime) for peer in peers for lane in floats]
        judged, lanes = _judge(arena, [ours, *floats, *lanes], floats[0].artifact)
        seconds = (1.0 if quick else 3.0) * len(lanes)
        times = arena.time(lanes, seconds=seconds)
    base = {lane.runtime: judged[lane.key] for lane in floats if lane.key in judged}
    passing = [
        lane
        for lane in lanes
        if lane not in floats
        and lane is not ours
        and _gate(loaded, base[lane.runtime], judged[lane.key]).result is Verdict.PASS
    ]
    fastest_float = min((lane for lane in floats), key=lambda lane: _p50(times[lane.key]))
    gate = _gate(loaded, base[ours.runtime], judged[ours.key])
    name = model.name
    rows = [
        Row(
            metric=f"{name}.accuracy_drop_points",
            value=100 * ((gate.baseline or 0) - (gate.value or 0)),
            unit=f"points of {model.metric.split(':')[0]}",
            spread=(
                100 * ((gate.baseline or 0) - (gate.high or 0)),
                100 * ((gate.baseline or 0) - (gate.low or 0)),
            ),
            n=gate.n,
            goal="passes at 1 point, 95 %"
            if best.precision != "float32"
            else "float32 is the answer",
            holds=gate.result is Verdict.PASS if best.precision != "float32" else None,
        ),
        _speed(f"{name}.speed_vs_float32", times, ours, fastest_float),
    ]
    rows += [
        Row(
            metric=f"{name}.peer_drop_points[{lane.key}]",
            value=100 * ((found.baseline or 0) - (found.value or 0)),
            unit=f"points, {found.result}",
            n=found.n,
        )
        for lane in lanes
        if lane not in floats and lane is not ours
        for found in [_gate(loaded, base[lane.runtime], judged[lane.key])]
    ]
    if passing:
        rival = min(passing, key=lambda lane: _p50(times[lane.key]))
        metric = f"{name}.speed_vs_fastest_passing_peer"
        rows.append(_speed(metric, times, ours, rival))
    static = next((peer for peer in peers if peer.maker == "quantize_static"), None)
    if static is None:
        return rows
    each = taken / max(1, progress.tried)
    rows.append(
        Row(
            metric=f"{name}.convert_time_per_candidate_vs_quantize_static",
            value=each,
            unit="s a candidate",
            peer="onnxruntime quantize_static",
            peer_value=static.seconds,
            ratio=each / static.seconds,
            n=progress.tried,
            goal="at most 3 x",
            holds=each / static.seconds <= 3,
        )
    )
    return rows


def _target() -> str:
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    return "cpu-x86-64-vnni" if "vnni" in flags else "cpu-x86-64"


def _artifact(key: str, path: Path) -> Artifact:
    return Artifact(
        key=key,
        path=path,
        digest=key,
        size=path.stat().st_size,
        precision="float32",
        rules=FLOAT_RULES,
    )


def _judge(
    arena: Arena, lanes: Sequence[Lane], baseline: Artifact
) -> tuple[dict[str, Judged], list[Lane]]:
    """Judge each lane; a runtime that cannot run a file leaves that lane out."""
    judged, left = {}, []
    for lane in lanes:
        try:
            judged[lane.key] = arena.judge(lane, baseline)
            left.append(lane)
        except ModelError as error:
            print(f"{lane.key}: {error}", file=sys.stderr)
    return judged, left


def _gate(loaded: Loaded, baseline: Judged, candidate: Judged) -> Any:
    return metric_gate(
        loaded.metric, baseline.outcomes, candidate.outcomes, max_drop=0.01, confidence=0.95
    )


def _p50(timing: Timing) -> float:
    return statistics.median(timing.milliseconds)


def _speed(metric: str, times: dict[str, Timing], ours: Lane, peer: Lane) -> Row:
    ratios = np.divide(times[peer.key].milliseconds, times[ours.key].milliseconds)
    ratio = float(np.median(ratios))
    return Row(
        metric=metric,
        value=_p50(times[ours.key]),
        unit="ms",
        peer=peer.key,
        peer_value=_p50(times[peer.key]),
        ratio=ratio,
        spread=quartiles(list(ratios)),
        n=len(ratios),
        goal="at least 1 x",
        holds=ratio >= _AS_FAST,
    )


def _peers(model: SharedModel, calibration: Path, evaluation: Path, out: Path) -> list[Entry]:
    """What other quantizers make of a model; one that fails is named and left out."""
    made = []
    makers: tuple[tuple[str, Callable[[Path], float]], ...] = (
        ("quantize_static", lambda path: _static(model, calibration, path, prepares=False)),
        ("quantize_static+prepared", lambda path: _static(model, calibration, path, prepares=True)),
        ("nncf", lambda path: _nncf(model, calibration, None, path)),
        ("nncf+accuracy-control", lambda path: _nncf(model, calibration, evaluation, path)),
    )
    for maker, make in makers:
        path = out / f"{maker}.onnx"
        try:
            seconds = make(path)
        except (ToolchainError, subprocess.CalledProcessError) as error:
            said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
            last = (said.strip().splitlines() or ["no message"])[-1]
            print(f"{model.name}: {maker} is left out: {last}", file=sys.stderr)
            continue
        made.append(Entry(maker, _artifact(maker, path), seconds))
    return made


def _static(model: SharedModel, calibration: Path, path: Path, *, prepares: bool) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.convert_cpu", "--quantize-static",
         str(model.file), str(calibration), str(path), str(int(prepares))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.strip().splitlines()[-1])


def _nncf(model: SharedModel, calibration: Path, evaluation: Path | None, path: Path) -> float:
    """NNCF in its toolchain; with evaluation data its accuracy control, which knows top1 alone."""
    if evaluation is not None and model.metric != "top1":
        raise ToolchainError("NNCF's accuracy control is run on top1 here.")
    request: dict[str, Any] = {
        "model": str(model.file),
        "output": str(path),
        "calibration": str(calibration),
        "method": "quantize" if evaluation is None else "quantize_with_accuracy_control",
    }
    if evaluation is not None:
        request |= {"evaluation": str(evaluation), "max_drop": 0.01}
    return float(ask(require("nncf"), request, timeout_s=1800)["seconds"])


def _quantize_static(model: str, calibration: str, out: str, prepares: str) -> None:
    """The peer in a process of its own: onnxruntime's quantizer as its documentation calls it."""
    from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static

    with np.load(calibration) as arrays:
        x = arrays["x"]
    import onnx

    name = onnx.load(model).graph.input[0].name

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


def _calibration_memory(quick: bool) -> Row:
    """How much more memory one more calibration sample takes: none, as it is streamed."""
    few, many = (16, 128) if quick else (16, 512)
    peaks = {count: _peak_of_calibrating(count) for count in (few, many)}
    each = (peaks[many] - peaks[few]) / (many - few) / 1e6
    return Row(
        metric="calibration.peak_memory_per_sample_mb",
        value=each,
        unit=f"MB a sample more, between {few} and {many}",
        goal="at most 0.01 MB",
        holds=each <= 0.01,
    )


def _peak_of_calibrating(count: int) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.convert_cpu", "--calibrate", str(count)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout.strip().splitlines()[-1])


def _calibrate(count: str) -> None:
    model = Path(__file__).resolve().parents[1] / "examples" / "digits" / "digits.onnx"
    rng = np.random.default_rng(0)

    def feeds() -> Iterator[list[np.ndarray]]:
        for _ in range(int(count)):
            yield [rng.normal(0, 1, (1, 1, 28, 28)).astype(np.float32)]

    statistics_ = observe(prepare(model.read_bytes()), feeds)
    statistics_.ranges("entropy", 99.99)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--quantize-static"]:
        _quantize_static(*sys.argv[2:])
    elif sys.argv[1:2] == ["--calibrate"]:
        _calibrate(sys.argv[2])
    else:
        main(
            "convert_cpu",
            measure,
            description=(__doc__ or "").splitlines()[0],
            conditions=versions("onnxruntime", "onnx", "numpy"),
        )
