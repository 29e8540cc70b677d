"""How long an engine and its host take for a sample, with and without transfers that overlap.

    python -m benchmarks.fpga_overlap
    python -m benchmarks.fpga_overlap --model kws_dscnn

Clocks are counted in Verilator, of an engine of 8 lanes, from the first bit of the first input to
the last bit of the last output of 8 samples, and divided by them: `M.bus.*` over Wishbone, where an
access takes 4 clocks, `M.uart.*` over its own UART at 50 clocks a bit (1 Mbaud at 50 MHz), whose
host asks every half a millisecond, and later more rarely, whether it is done. `alone` writes,
computes and reads one sample after the other; `overlapped` writes the next and reads the last
meanwhile. `M.*.computing` is what the engine itself takes. Nothing ran on an FPGA.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.digits_nets import digits_cnn, digits_mlp
from benchmarks.measure import Row, main, versions
from benchmarks.shared_models import models_folder, shared_models
from converters.fpga.integer.from_onnx import integer_graph
from converters.fpga.integer.reference import encode_input, run
from converters.fpga.program import program
from converters.fpga.schedule import schedule
from edgeml.errors import EdgemlError
from hardware.fpga.driver import Driver
from hardware.fpga.pins import SimulatedSerial, VerilatedPins, serial_engine
from hardware.fpga.program import Program, Size
from hardware.fpga.simulated import SimulatedEngine
from hardware.fpga.transport import Transport
from hardware.fpga.verilated import default_folder

_LANES = 8
_CLOCK_HZ = 50e6
_BAUD = 1e6
_SAMPLES = 8
_CALIBRATION = 64
_DIGITS = {"digits_mlp": digits_mlp, "digits_cnn": digits_cnn}
_MODELS = (*_DIGITS, "kws_dscnn")


def measure(quick: bool, model: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows, model by model.

    Args:
        quick: the smallest model alone.
        model: names, those of the shared models included where they are.
    """
    for name in model or (("digits_mlp",) if quick else _MODELS):
        yield from _rows(name)


def _rows(name: str) -> Iterator[Row]:
    file, samples = _of(name)
    graph = integer_graph(file, samples[:_CALIBRATION])
    codes = encode_input(graph, samples[:_SAMPLES])
    wanted = run(graph, codes)
    made = program(schedule(graph, _LANES))
    yield Row(f"{name}.input_bytes", made.input.bytes, "bytes")
    bus = SimulatedEngine(Size.of(made))
    yield from _compared(f"{name}.bus", bus, lambda: bus.clocks, made, (codes, wanted))
    divider = int(_CLOCK_HZ / _BAUD)
    engine = serial_engine(Size.of(made), default_folder(), is_spi=False, divider=divider)
    port = VerilatedPins(engine, is_spi=False, divider=divider)
    uart = SimulatedSerial(port, _CLOCK_HZ)
    yield from _compared(f"{name}.uart", uart, lambda: port.clocks, made, (codes, wanted))


def _compared(
    name: str,
    way: Transport,
    clocks: Callable[[], int],
    made: Program,
    proof: tuple[np.ndarray, np.ndarray],
) -> Iterator[Row]:
    codes, wanted = proof
    try:
        driver = Driver(way, made, timeout_s=3600)
        begun = clocks()
        answers = [driver.run(sample) for sample in codes]
        between, computing = clocks(), driver.cycles
        answers += driver.stream(codes)
        ended = clocks()
    finally:
        way.close()
    wrong = int((np.stack(answers) != np.concatenate([wanted, wanted])).sum())
    alone, overlapped = (between - begun) / len(codes), (ended - between) / len(codes)
    yield Row(f"{name}.computing", computing, "clocks")
    yield Row(f"{name}.alone", alone, "clocks a sample", n=len(codes))
    yield Row(
        f"{name}.overlapped", overlapped, "clocks a sample", "alone", alone, overlapped / alone,
        n=len(codes),
    )  # fmt: skip
    yield Row(f"{name}.mismatches", wrong, "outputs", goal="0", holds=wrong == 0)


def _of(name: str) -> tuple[bytes, np.ndarray]:
    """A model's file, and samples as it takes them."""
    with tempfile.TemporaryDirectory(prefix="edgeml-bench-") as folder:
        if name in _DIGITS:
            file, calibration, _ = _DIGITS[name](Path(folder))
            return file.read_bytes(), _samples(calibration)
        found = models_folder()
        for shared in shared_models(found) if found else ():
            if shared.name == name:
                calibration, _ = shared.write_data(Path(folder))
                return shared.file.read_bytes(), _samples(calibration)
    raise EdgemlError(f"There is no {name}.", fix="Name the folder of models in EDGEML_MODELS.")


def _samples(path: Path) -> np.ndarray:
    with np.load(path) as arrays:
        return np.asarray(arrays["x"], np.float32)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", action="append")


if __name__ == "__main__":
    main(
        "fpga_overlap",
        measure,
        description=(__doc__ or "").splitlines()[0],
        conditions=versions("onnxruntime", "onnx", "numpy"),
        options=_options,
    )
