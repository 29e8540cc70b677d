"""What `edgeml convert` makes of trained CNNs for NPUs, by the vendors' own compilers.

Each model is converted for each target by itself, with the command's gates: the accuracy within one
point, 95 % of operators and of multiply-accumulates on the NPU. `T.M.accuracy_drop_points` is float
to int8 in points, on the strongest execution that there is here, its spread the interval at 95 %;
`T.M.verification_level` is how strong that is, 1 for `device-executed` to 8 for `estimated`, named
beside. `T.M.offload_share` is the smaller of both shares, `T.M.compile_s` what the compiler took on
this machine, `T.M.bytes` the file. `T.M.estimated_cycles` are Vela's, which nobody measured; beside
them is what somebody published for the same network, measured on a microcontroller's CPU: both are
turned to milliseconds in the row's goal, and neither is this project's measurement.

A target whose toolchain is not installed here is left out and named.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.conversions import options, say
from benchmarks.measure import Row, main, versions
from benchmarks.shared_models import SharedModel, models_folder, shared_models
from cloud_sync.evidence import CompileReport, GateResult, Verification
from converters.backends import backend
from converters.conversion import convert
from converters.result import VariantResult
from converters.toolchains.store import installed
from edgeml.errors import EdgemlError, GateFailed
from hardware.profiles import select

_CNNS = ("cifar_resnet8", "cifar_resnet20", "kws_dscnn", "yunet")
_TARGETS = (
    *("npu-ethos-u55-128", "npu-ethos-u65-256", "npu-ethos-u85-256", "npu-intel"),
    *(
        "npu-qualcomm-htp-v68",
        "npu-qualcomm-htp-v73",
        "npu-qualcomm-htp-v79",
        "npu-rockchip-rk3588",
    ),
    *("npu-rockchip-rk3566", "npu-rockchip-rk3568", "npu-rockchip-rv1106"),
    *("npu-esp32-s3", "npu-esp32-p4"),
)
_QUICK_TARGETS = ("npu-ethos-u55-128", "npu-ethos-u85-256", "npu-qualcomm-htp-v73")
# MLPerf Tiny v1.1, closed division, Krai, NUCLEO-H7A3ZI-Q (Cortex-M7), X-CUBE-AI 7.3.0, inferences
# a second; github.com/mlcommons/tiny_results_v1.1, closed/Krai/results/README.md.
_PUBLISHED = {"cifar_resnet8": 18.574, "kws_dscnn": 59.667}
_SOURCE = "MLPerf Tiny v1.1, Krai, Cortex-M7 CPU (NUCLEO-H7A3ZI)"
_LEVELS = tuple(Verification)


def measure(
    quick: bool, model: Sequence[str] | None = None, target: Sequence[str] | None = None
) -> Iterator[Row]:
    """Rows, those of a model and a target as soon as they are done.

    Args:
        quick: fewer targets, and the smallest models only.
        model: the models' names; none means the CNNs of MLPerf Tiny and a larger one.
        target: the targets' names; none means one of each kind.
    """
    folder = models_folder()
    found = {each.name: each for each in shared_models(folder)} if folder else {}
    for name in target or (_QUICK_TARGETS if quick else _TARGETS):
        if why := _missing(name):
            _say(f"{name} is left out: {why}")
            continue
        for wanted in model or (_CNNS[::2] if quick else _CNNS):
            if wanted not in found:
                _say(f"no {wanted} in {folder}; set EDGEML_MODELS.")
                continue
            _say(f"{wanted} for {name}")
            try:
                yield from _rows(found[wanted], name)
            except EdgemlError as error:
                _say(f"{wanted} for {name} fails: {error}")


def _missing(target: str) -> str:
    """What of a target's toolchains is not here; empty where all are."""
    try:
        [profile] = select([target])
        names = backend(profile.backend).toolchains
    except EdgemlError as error:
        return str(error)
    lacking = [name for name in names if installed(name) is None]
    return f"edgeml toolchain install {' '.join(lacking)}" if lacking else ""


def _rows(model: SharedModel, target: str) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="edgeml-bench-") as name:
        out = Path(name)
        calibration, evaluation = model.write_data(out)

        def converted(max_drop: float) -> VariantResult:
            return convert(
                model.file,
                calibration=calibration,
                evaluation=evaluation,
                name="model",
                version="1",
                out=out / "release",
                targets=(target,),
                metric=model.metric,
                max_drop=max_drop,
                min_offload=0.0,
                accept_undecided="measured by the benchmark",
            ).variants[0]

        try:
            variant = converted(0.01)
            passes = next(g for g in variant.gates if g.name == "accuracy").result == "pass"
        except GateFailed:  # it loses more: how much, is what is measured
            variant, passes = converted(0.5), False
        yield from _figures(f"{target}.{model.name}", model.name, variant, passes)


def _figures(name: str, model: str, variant: VariantResult, passes: bool) -> Iterator[Row]:
    level = Verification(variant.verification)
    gate = next(gate for gate in variant.gates if gate.name == "accuracy")
    yield Row(
        f"{name}.accuracy_drop_points",
        100 * _drop(gate, gate.value),
        f"points of {gate.unit}",
        spread=(100 * _drop(gate, gate.high), 100 * _drop(gate, gate.low)),
        n=gate.n,
        goal=f"within 1 point at 95 %; {level}",
        holds=passes if gate.value is not None and gate.n >= _DECIDING else None,
    )
    yield Row(
        f"{name}.verification_level", _LEVELS.index(level) + 1, f"of {len(_LEVELS)}", goal=level
    )
    yield Row(f"{name}.bytes", variant.bytes, "bytes")
    report = variant.compiled
    assert report is not None, "a backend made it"
    yield Row(f"{name}.compile_s", report.seconds, f"s, {report.compiler}")
    if report.placement is not None:
        share = report.placement.share
        yield Row(
            f"{name}.offload_share",
            share,
            "share",
            n=report.placement.operators,
            goal="at least 0.95 of operators and of MACs",
            holds=share >= 0.95,
        )
    yield from _estimated(name, model, report)


_DECIDING = 300  # samples that it takes to show one point, where nothing differs


def _estimated(name: str, model: str, report: CompileReport) -> Iterator[Row]:
    by_name = {estimate.name: estimate for estimate in report.estimates}
    cycles, taken = by_name.get("cycles"), by_name.get("time of an inference")
    if cycles is None or taken is None:
        return
    published = 1e3 / _PUBLISHED[model] if model in _PUBLISHED else None
    beside = f"; {_SOURCE}: {published:.1f} ms" if published else ""
    yield Row(
        f"{name}.estimated_cycles",
        cycles.value,
        f"cycles, estimated by {cycles.source}",
        goal=f"estimated {taken.value:.2f} ms at the configuration's clock, not measured{beside}",
    )


def _drop(gate: GateResult, value: float | None) -> float:
    return (gate.baseline or 0.0) - (value or 0.0)


def _say(what: str) -> None:
    say("convert_npu", what)


if __name__ == "__main__":
    main(
        "convert_npu",
        measure,
        description=(__doc__ or "").splitlines()[0],
        conditions=versions("onnxruntime", "onnx", "numpy"),
        options=options,
    )
