"""What `edgeml convert` makes of trained models, beside other quantizers and float32.

For each model `edgeml convert` runs with its defaults (accuracy within one point at 95 %
confidence, at least 1.1 x float32), onnxruntime's `quantize_static` with its documented
defaults, with and without its pre-processing, and NNCF with and without accuracy control where
its toolchain is installed (`edgeml toolchain install nncf`). Then all files run in turns, each
in a process of its own: edgeml's on the runtime it chose, the float model and the others' on
onnxruntime and OpenVINO. All are judged by the same metric and the same paired test against
the float model on onnxruntime.

`M.accuracy_drop_points` is in points, its spread the interval at 95 %. The time a candidate is
what somebody waits for: the whole command `edgeml convert`, from its start to its end, over the
number of candidates that it tried (`benchmarks.converting` says what counts as one), beside a
whole script that calls `quantize_static` once, run before and after; `..._vs_quantize_static_call`
sets it beside the call alone. `M.convert_seconds[STEP]` are where the time went, and
`toolchain.start_seconds[NAME]` what a toolchain's environment takes to start, which is in them.
The data are of `benchmarks.shared_models`, or of any folder in `EDGEML_MODELS` that has the same
files.
"""

import argparse
import dataclasses
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.converting import Converted, convert, starting_times
from benchmarks.measure import Row, main, quartiles, versions
from benchmarks.quantizers import (
    RUNTIMES,
    STATIC,
    Omitted,
    Quantized,
    quantized,
    static_seconds,
)
from benchmarks.shared_models import SharedModel, models_folder, shared_models
from cloud_sync.evidence import GateResult, Verdict
from converters.arena import Arena
from converters.cache import Cache
from converters.executor import LocalExecutor
from converters.gates import metric_gate
from converters.lanes import Lane, Race
from converters.loading import Loaded, load
from converters.methods import observe, prepare
from converters.progress import Silent
from converters.recipe import FLOAT, Precision
from converters.request import Request
from converters.workshop import FLOAT_RULES, Artifact
from edgeml.errors import EdgemlError, ModelError
from hardware.probes import instruction_set, probe

_ROOT = Path(__file__).resolve().parents[1]
_QUICK = ("kws_dscnn", "cifar_resnet20")
_AS_FAST = 0.97  # the same lane raced against itself comes out between this and its inverse
_LANE_S = 2.0
_SUFFIXES = {"tflite": ".tflite"}


def measure(quick: bool, model: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows, those of a model as soon as it is done.

    Args:
        quick: a few models only, raced for a shorter time.
        model: the models' names; none means all.
    """
    folder = models_folder()
    found = shared_models(folder) if folder else []
    wanted = model or (_QUICK if quick else [each.name for each in found])
    if unknown := set(wanted) - {each.name for each in found}:
        _say(f"no {', '.join(sorted(unknown))} in {folder}; set EDGEML_MODELS.")
    for each in found:
        if each.name not in wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="edgeml-bench-") as out:
            begun = time.perf_counter()
            try:
                yield from _rows_of(each, Path(out), quick)
            except (EdgemlError, subprocess.SubprocessError) as error:
                _say(f"{each.name} is left out: {error}")
            _say(f"{each.name}: done in {time.perf_counter() - begun:.0f} s")
    for name, taken in starting_times():
        value = statistics.median(taken)
        yield Row(f"toolchain.start_seconds[{name}]", value, "s", n=len(taken))
    if not model:
        yield _calibration_memory(quick)


def _rows_of(model: SharedModel, out: Path, quick: bool) -> Iterator[Row]:
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
    before = static_seconds(model, calibration, out / "before.onnx")
    _say(f"{model.name}: edgeml convert")
    converted = _convert(request)
    made: list[Quantized] = []
    omitted: list[str] = []
    for peer in quantized(model, calibration, evaluation, out):
        if isinstance(peer, Omitted):
            omitted.append(f"{peer.maker} left out: {peer.why}")
        else:
            made.append(peer)
        _say(f"{model.name}: {omitted[-1] if isinstance(peer, Omitted) else peer.maker}")
    loaded = load(request, Silent())
    with closing(Arena(LocalExecutor(), loaded, Cache(None), Silent())) as arena:
        lanes = _lanes(model, converted, made, loaded, out)
        yield from _race(model, arena, loaded, lanes, omitted, quick=quick)
    yield from _times(model, converted, made, before)


def _convert(request: Request) -> Converted:
    return convert(
        [
            *(str(request.model), "--metric", request.metric, "--target", request.targets[0]),
            *("--calibration", request.calibration, "--evaluate", request.evaluation),
            *("--name", request.name, "--version", request.version),
        ],
        request.out,
    )


_Figures = Mapping[str, Sequence[float]]  # milliseconds by lane


class _Lanes(msgspec.Struct, frozen=True):
    ours: Lane
    floats: tuple[Lane, ...]
    peers: tuple[Lane, ...]


def _lanes(
    model: SharedModel, converted: Converted, made: Sequence[Quantized], loaded: Loaded, out: Path
) -> _Lanes:
    best = converted.best
    runtimes = [r.name for r in loaded.host.runtimes if r.name in RUNTIMES]
    floats = tuple(Lane(_artifact(FLOAT, model.file), runtime) for runtime in runtimes)
    file = out / f"edgeml{_SUFFIXES.get(best['format'], '.onnx')}"
    file.write_bytes(Path(best["file"]).read_bytes())
    ours = Lane(_artifact(f"edgeml {best['precision']}", file, best["precision"]), best["runtime"])
    # The same file on the same runtime is one lane: raced with itself it would measure noise.
    same = (lane for lane in floats if lane.runtime == ours.runtime)
    if file.read_bytes() == model.file.read_bytes():
        ours = next(same, ours)
    return _Lanes(
        ours,
        floats,
        tuple(Lane(_artifact(m.maker, m.path), runtime) for m in made for runtime in runtimes),
    )


def _race(
    model: SharedModel,
    arena: Arena,
    loaded: Loaded,
    lanes: _Lanes,
    omitted: list[str],
    *,
    quick: bool,
) -> Iterator[Row]:
    """Judge and race all lanes that run; one that does not is named."""
    baseline = lanes.floats[0]
    gates: dict[str, GateResult] = {}
    running: list[Lane] = []
    for lane in dict.fromkeys((*lanes.floats, lanes.ours, *lanes.peers)):
        try:
            gates[lane.key] = _gate(arena, loaded, baseline, lane)
        except ModelError as error:
            omitted.append(f"{lane.key} left out: {error}")
            _say(f"{model.name}: {omitted[-1]}")
        else:
            running.append(lane)
    _say(f"{model.name}: racing {len(running)} lanes")
    seconds = (_LANE_S / 4 if quick else _LANE_S) * len(running)
    times = arena.time(Race(lanes=running, seconds=seconds))
    figures = {key: timing.milliseconds for key, timing in times.items()}
    yield _drop(f"{model.name}.accuracy_drop_points", lanes.ours, gates[lanes.ours.key])
    floats = [lane for lane in lanes.floats if lane in running]
    fastest = min(floats, key=lambda lane: statistics.median(figures[lane.key]))
    yield _speed(f"{model.name}.speed_vs_float32", figures, lanes.ours, fastest)
    peers = [lane for lane in lanes.peers if lane in running]
    passing = [lane for lane in peers if gates[lane.key].result is Verdict.PASS]
    metric, note = f"{model.name}.speed_vs_fastest_passing_peer", "; ".join(["", *omitted])
    if passing:
        rival = min(passing, key=lambda lane: statistics.median(figures[lane.key]))
        yield _speed(metric, figures, lanes.ours, rival, note)
    else:
        ours = figures[lanes.ours.key]
        yield Row(metric, statistics.median(ours), "ms", n=len(ours), goal=f"no peer passes{note}")
    for lane in peers:
        row = _speed(f"{model.name}.speed_vs[{lane.key}]", figures, lanes.ours, lane)
        gate = gates[lane.key]
        said = f"{gate.result}, it drops {100 * _dropped(gate, gate.value):.2f} points"
        yield dataclasses.replace(row, goal=said, holds=None)


def _gate(arena: Arena, loaded: Loaded, baseline: Lane, lane: Lane) -> GateResult:
    wanted = arena.judge(baseline, baseline.artifact)
    given = arena.judge(lane, baseline.artifact)
    return metric_gate(
        loaded.metric, wanted.outcomes, given.outcomes, max_drop=0.01, confidence=0.95
    )


def _drop(metric: str, lane: Lane, gate: GateResult) -> Row:
    is_float = lane.artifact.precision == FLOAT
    return Row(
        metric=metric,
        value=100 * _dropped(gate, gate.value),
        unit=f"points of {gate.unit.partition(':')[0]}, {lane.artifact.key} on {lane.runtime}",
        spread=(100 * _dropped(gate, gate.high), 100 * _dropped(gate, gate.low)),
        n=gate.n,
        goal="float32 is the answer" if is_float else "passes at 1 point, 95 %",
        holds=None if is_float else gate.result is Verdict.PASS,
    )


def _dropped(gate: GateResult, value: float | None) -> float:
    return (gate.baseline or 0.0) - (value or 0.0)


def _speed(metric: str, figures: _Figures, ours: Lane, peer: Lane, note: str = "") -> Row:
    ratios = np.divide(figures[peer.key], figures[ours.key])
    ratio = float(np.median(ratios))
    return Row(
        metric=metric,
        value=statistics.median(figures[ours.key]),
        unit="ms",
        peer=peer.key,
        peer_value=statistics.median(figures[peer.key]),
        ratio=ratio,
        spread=quartiles(list(ratios)),
        n=len(ratios),
        goal=f"at least 1 x{note}",
        holds=ratio >= _AS_FAST,
    )


def _times(
    model: SharedModel, converted: Converted, made: Sequence[Quantized], before: float | None
) -> Iterator[Row]:
    """The time of a candidate beside a script that quantizes once, and beside the call in it."""
    static = next((peer for peer in made if peer.maker == STATIC), None)
    each = converted.seconds / converted.tried
    name = f"{model.name}.convert_time_per_candidate_vs_quantize_static"
    script, call = (static.seconds, static.call_seconds) if static else (None, None)
    if script and before:
        script = (script + before) / 2
    counted = f"{converted.files} files and float32 on {converted.floats} more runtimes"
    row = Row(
        metric=name,
        value=each,
        unit="s",
        peer=f"a script with {STATIC}",
        peer_value=script,
        ratio=each / script if script else None,
        n=converted.tried,
        goal=f"at most 3 x ({counted})" if script else f"{STATIC} fails",
        holds=each / script <= 3 if script else None,
    )
    yield row
    if call:
        yield dataclasses.replace(
            row,
            metric=f"{name}_call",
            peer=f"the call of {STATIC} alone",
            peer_value=call,
            ratio=each / call,
            goal="",
            holds=None,
        )
    for step, seconds in converted.steps.items():
        yield Row(f"{model.name}.convert_seconds[{step}]", seconds, "s")


def _target() -> str:
    return "cpu-x86-64-vnni" if "vnni" in instruction_set(probe()) else "cpu-x86-64"


def _artifact(key: str, path: Path, precision: Precision = FLOAT) -> Artifact:
    return Artifact(
        key=key,
        path=path,
        digest=key,
        size=path.stat().st_size,
        precision=precision,
        rules=FLOAT_RULES,
    )


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
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.strip().splitlines()[-1])


def _calibrate(count: str) -> None:
    model = _ROOT / "examples" / "digits" / "digits.onnx"
    rng = np.random.default_rng(0)

    def feeds() -> Iterator[list[np.ndarray]]:
        for _ in range(int(count)):
            yield [rng.normal(0, 1, (1, 1, 28, 28)).astype(np.float32)]

    seen = observe(prepare(model.read_bytes()), feeds)
    seen.ranges("entropy", 99.99)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _say(what: str) -> None:
    print(f"benchmarks.convert_cpu: {what}", file=sys.stderr, flush=True)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", action="append", metavar="NAME", help="this model; may be given more than once"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--calibrate"]:
        _calibrate(sys.argv[2])
    else:
        main(
            "convert_cpu",
            measure,
            description=(__doc__ or "").splitlines()[0],
            conditions=versions("onnxruntime", "openvino", "onnx", "numpy"),
            options=_options,
        )
