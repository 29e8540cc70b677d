"""What `edgeml convert` makes of nets for FPGAs, by open tools; nothing is run on silicon.

    python -m benchmarks.convert_fpga
    python -m benchmarks.convert_fpga --target fpga-ecp5-85k --model digits_mlp --until bitstream

`T.M.rtl_mismatches` counts golden samples on which the Verilog's bits, in Verilator, are not the
integer model's. `T.M.accuracy_drop_points` is float to integer. `T.M.cycles` are counted in
simulation; `T.M.fmax_mhz`, `T.M.lut`, `T.M.ff`, `T.M.dsp` and `T.M.bram` are place and route's, and
only there with `--until bitstream`. `T.M.latency_ms` is cycles at the clock that was asked for,
`T.M.build_s` the time of gateware and tools on this machine. The dataflow rows (`T-dataflow`) are
da4ml's own logic for the same net, its LUTs an estimate of it.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.measure import Row, main, versions
from benchmarks.shared_models import models_folder, shared_models
from cloud_sync.evidence import CompileReport, GateResult
from cloud_sync.release import Layout
from converters.conversion import convert
from edgeml.errors import EdgemlError

_TARGETS = ("fpga-ecp5-85k", "fpga-ice40-up5k")
_MLP = "digits_mlp"
_CNNS = ("kws_dscnn", "cifar_resnet8")
_NAMES = {
    "luts": "lut",
    "flip_flops": "ff",
    "latency": "latency_ms",
    "fmax": "fmax_mhz",
}
Data = tuple[Path, Path, Path]  # model, calibration, evaluation


def measure(
    quick: bool,
    target: Sequence[str] | None = None,
    model: Sequence[str] | None = None,
    until: str = "rtl",
) -> Iterator[Row]:
    """Rows, those of a target and a model as soon as they are done.

    Args:
        quick: the small net alone.
        target: the targets' names.
        model: the models' names; the CNNs are measured where the shared models are.
        until: `rtl` or `bitstream`.
    """
    for name in target or _TARGETS:
        for net in model or ((_MLP,) if quick else (_MLP, *_CNNS)):
            kinds = ("engine", "dataflow") if net == _MLP and "ecp5" in name else ("engine",)
            for kind in kinds:
                try:
                    yield from _rows(name, net, kind, until)
                except EdgemlError as error:
                    _say(f"{net} for {name}, {kind}, is left out: {error}")


def _rows(target: str, model: str, architecture: str, until: str) -> Iterator[Row]:
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
            options={"architecture": architecture, "until": until},
        )
        layout = Layout.open(folder / "release")
        [release] = layout.releases()
        [record] = layout.evidence(release.digest)
    assert record.compiled is not None, "a target of a backend"
    suffix = "" if architecture == "engine" else "-dataflow"
    yield from _figures(f"{target}{suffix}.{model}", record.gates, record.compiled)


def _figures(name: str, gates: Sequence[GateResult], report: CompileReport) -> Iterator[Row]:
    by_name = {gate.name: gate for gate in gates}
    rtl, accuracy = by_name["rtl"], by_name["accuracy"]
    wrong = rtl.value or 0.0
    yield Row(
        f"{name}.rtl_mismatches", wrong, f"of {rtl.n} samples", n=rtl.n, goal="0", holds=wrong == 0
    )
    drop = 100 * ((accuracy.baseline or 0.0) - (accuracy.value or 0.0))
    yield Row(f"{name}.accuracy_drop_points", drop, "points", n=accuracy.n)
    for estimate in report.estimates:
        label = _NAMES.get(estimate.name, estimate.name)
        yield Row(f"{name}.{label}", estimate.value, f"{estimate.unit} ({estimate.source})".strip())
    yield Row(f"{name}.requested_mhz", float(report.settings["clock_mhz"]), "MHz")
    yield Row(f"{name}.build_s", report.seconds, "s")


def _data(model: str, folder: Path) -> Data:
    if model == _MLP:
        return _digits_mlp(folder)
    found = models_folder()
    for shared in shared_models(found) if found else ():
        if shared.name == model:
            return shared.file, *shared.write_data(folder)
    raise EdgemlError(f"There is no {model}.", fix="Name the folder of models in EDGEML_MODELS.")


def _digits_mlp(folder: Path) -> Data:
    """An MLP 64-32-16-10, trained on scikit-learn's digits."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    x, labels = load_digits(return_X_y=True)
    x, held_back = x.astype(np.float32), 1400
    trained = MLPClassifier((32, 16), max_iter=120, tol=0.0, n_iter_no_change=120, random_state=0)
    _quietly(lambda: trained.fit(x[:held_back] / 16, labels[:held_back]))
    nodes, constants, given = [], {"scale": np.float32(1 / 16)}, "scaled"
    nodes.append(helper.make_node("Mul", ["x", "scale"], [given]))
    layers = list(zip(trained.coefs_, trained.intercepts_, strict=True))
    for i, (weights, bias) in enumerate(layers):
        constants |= {f"w{i}": weights.astype(np.float32), f"b{i}": bias.astype(np.float32)}
        is_last = i == len(layers) - 1
        made = "y" if is_last else f"g{i}"
        nodes.append(helper.make_node("Gemm", [given, f"w{i}", f"b{i}"], [made], f"dense{i}"))
        if not is_last:
            given = f"h{i}"
            nodes.append(helper.make_node("Relu", [made], [given], f"relu{i}"))
    graph = helper.make_graph(
        nodes,
        _MLP,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    file = folder / "model.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), file)
    np.savez(folder / "calibration.npz", x=x[:1000])
    np.savez(folder / "evaluation.npz", x=x[held_back:], y=labels[held_back:])
    return file, folder / "calibration.npz", folder / "evaluation.npz"


def _quietly(work: Callable[[], object]) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work()


def _say(what: str) -> None:
    print(f"benchmarks.convert_fpga: {what}", file=sys.stderr, flush=True)


def _options(parser: argparse.ArgumentParser) -> None:
    for name in ("model", "target"):
        parser.add_argument(
            f"--{name}", action="append", metavar="NAME", help=f"this {name}; more than once"
        )
    parser.add_argument("--until", choices=("rtl", "bitstream"), default="rtl")


if __name__ == "__main__":
    main(
        "convert_fpga",
        measure,
        description=(__doc__ or "").splitlines()[0],
        conditions=versions("onnxruntime", "onnx", "numpy"),
        options=_options,
    )
