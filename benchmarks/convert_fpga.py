"""What `edgeml convert` makes of nets for FPGAs, by open tools; nothing is run on silicon.

    python -m benchmarks.convert_fpga
    python -m benchmarks.convert_fpga --target fpga-ecp5-85k --model digits_mlp --until bitstream

`T.M.rtl_mismatches` counts golden samples on which the Verilog's bits, in Verilator, are not the
integer model's. `T.M.accuracy_drop_points` is float to integer. `T.M.cycles` are counted in
simulation; `T.M.fmax_mhz`, `T.M.lut`, `T.M.ff`, `T.M.dsp` and `T.M.bram` are place and route's with
`--until bitstream`; without it there is no clock, and what there is of the others is an estimate,
named so. `T.M.latency_ms` is cycles at the clock that was asked for, `T.M.build_s` the time of
gateware and tools on this machine. The dataflow rows (`T-dataflow`) are da4ml's logic for the same
net, `da4ml_lut` is what da4ml says of it. `fpga-amd-vitis` is hls4ml's project, whose C++ ran
(`T.M.csim_mismatches`) and which nobody synthesised. `published.*` is what hls4ml and FINN measured
on a board for the same task, with nets of their own: neighbours, no peers.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.conversions import options, say
from benchmarks.digits_nets import Data, digits_cnn, digits_mlp
from benchmarks.measure import Row, main, versions
from benchmarks.shared_models import models_folder, shared_models
from cloud_sync.evidence import CompileReport, GateResult
from cloud_sync.release import Layout
from converters.conversion import convert
from edgeml.errors import EdgemlError

_TARGETS = ("fpga-ecp5-85k", "fpga-ice40-up5k", "fpga-amd-vitis")
_DIGITS = {"digits_mlp": digits_mlp, "digits_cnn": digits_cnn}
_CNNS = ("kws_dscnn", "cifar_resnet8")
_VITIS = "fpga-amd-vitis"
_PROOFS = {"rtl": "rtl_mismatches", "csim": "csim_mismatches", "netlist": "netlist_mismatches"}
_NAMES = {
    "luts": "lut",
    "flip_flops": "ff",
    "latency": "latency_ms",
    "fmax": "fmax_mhz",
}
# MLPerf Tiny v0.7, open division, hls4ml-finn, Pynq-Z2, measured there: by model the tool, its
# own net for the task, median inferences a second, top-1 in percent.
# github.com/mlcommons/tiny_results_v0.7, open/hls4ml-finn/results/pynq-z2, */*/results.txt.
_PUBLISHED = {
    "cifar_resnet8": (("hls4ml", "RN07", 36.596, 83.5), ("finn", "CNV-W1A1", 661.473, 84.5)),
    "kws_dscnn": (("finn", "KWS-W3A3", 57268.135, 82.5),),
}
_SOURCE = "MLPerf Tiny v0.7, hls4ml-finn, Pynq-Z2"


def measure(
    quick: bool,
    target: Sequence[str] | None = None,
    model: Sequence[str] | None = None,
    until: str = "rtl",
    lanes: str = "auto",
) -> Iterator[Row]:
    """Rows, those of a target and a model as soon as they are done.

    Args:
        quick: the small net alone.
        target: the targets' names.
        model: the models' names; the CNNs are measured where the shared models are.
        until: `rtl` or `bitstream`.
        lanes: of engines; `auto` takes those that the search chooses.
    """
    models = model or (("digits_mlp",) if quick else (*_DIGITS, *_CNNS))
    for net in models:
        yield from _published(net)
    for name in target or _TARGETS:
        for net in models:
            if name == _VITIS and net not in _DIGITS and not model:
                continue  # its C++ takes g++ longer than all else together
            for kind in _kinds(name, net):
                try:
                    yield from _rows(name, net, kind, {"until": until, "lanes": lanes})
                except EdgemlError as error:
                    _say(f"{net} for {name}, {kind}, is left out: {error}")


def _kinds(target: str, model: str) -> tuple[str, ...]:
    if target == _VITIS:
        return ("hls4ml",)
    return ("engine", "dataflow") if model in _DIGITS and "ecp5" in target else ("engine",)


def _published(model: str) -> Iterator[Row]:
    """What others measured for the same task, with nets of their own."""
    for tool, net, rate, top1 in _PUBLISHED.get(model, ()):
        name = f"published.{tool}.{model}"
        yield Row(f"{name}.latency_ms", 1e3 / rate, f"ms, {net}, measured", goal=_SOURCE)
        yield Row(f"{name}.top1", top1, f"%, {net}", goal=_SOURCE)


def _rows(target: str, model: str, architecture: str, told: Mapping[str, str]) -> Iterator[Row]:
    _say(f"{model} for {target}, {architecture}")
    with tempfile.TemporaryDirectory(prefix="edgeml-bench-") as name:
        folder = Path(name)
        file, calibration, evaluation = _data(model, folder)
        convert(
            file,
            calibration=calibration,
            evaluation=evaluation,
            name="model",
            version="1",
            out=folder / "release",
            targets=(target,),
            max_drop=0.05,
            accept_undecided="measured by the benchmark",
            options={} if target == _VITIS else {"architecture": architecture, **told},
        )
        layout = Layout.open(folder / "release")
        [release] = layout.releases()
        [record] = layout.evidence(release.digest)
    assert record.compiled is not None, "a target of a backend"
    suffix = "-dataflow" if architecture == "dataflow" else ""
    yield from _figures(f"{target}{suffix}.{model}", record.gates, record.compiled)


def _figures(name: str, gates: Sequence[GateResult], report: CompileReport) -> Iterator[Row]:
    by_name = {gate.name: gate for gate in gates}
    accuracy = by_name["accuracy"]
    for gate, metric in _PROOFS.items():
        if proof := by_name.get(gate):
            wrong = proof.value or 0.0
            said = f"of {proof.n} samples"
            yield Row(f"{name}.{metric}", wrong, said, n=proof.n, goal="0", holds=wrong == 0)
    yield Row(f"{name}.top1", 100 * (accuracy.value or 0.0), "% of integers", n=accuracy.n)
    drop = 100 * ((accuracy.baseline or 0.0) - (accuracy.value or 0.0))
    yield Row(f"{name}.accuracy_drop_points", drop, "points", n=accuracy.n)
    for estimate in report.estimates:
        label = _NAMES.get(estimate.name, estimate.name)
        label = f"da4ml_{label}" if "da4ml" in estimate.source else label
        yield Row(f"{name}.{label}", estimate.value, f"{estimate.unit} ({estimate.source})".strip())
    yield Row(f"{name}.requested_mhz", float(report.settings["clock_mhz"]), "MHz")
    yield Row(f"{name}.build_s", report.seconds, "s")


def _data(model: str, folder: Path) -> Data:
    if model in _DIGITS:
        return _DIGITS[model](folder)
    found = models_folder()
    for shared in shared_models(found) if found else ():
        if shared.name == model:
            return shared.file, *shared.write_data(folder)
    raise EdgemlError(f"There is no {model}.", fix="Name the folder of models in EDGEML_MODELS.")


def _say(what: str) -> None:
    say("convert_fpga", what)


def _options(parser: argparse.ArgumentParser) -> None:
    options(parser)
    parser.add_argument("--until", choices=("rtl", "bitstream"), default="rtl")
    parser.add_argument("--lanes", default="auto", help="of engines; auto: as the search chooses")


if __name__ == "__main__":
    main(
        "convert_fpga",
        measure,
        description=(__doc__ or "").splitlines()[0],
        conditions=versions("onnxruntime", "onnx", "numpy"),
        options=_options,
    )
