"""Networks of MLPerf Tiny on the gateware, and bitstreams for them: `make test-fpga`."""

import os
from pathlib import Path

import numpy as np
import pytest

from converters.fpga.integer.from_onnx import integer_graph
from converters.fpga.integer.reference import encode_input, run
from converters.fpga.program import program
from converters.fpga.schedule import schedule
from converters.fpga.simulate import simulate
from converters.fpga.synthesis import TOOLCHAIN, synthesise
from hardware.fpga.board import boards
from hardware.fpga.program import Program, Size
from hardware.fpga.simulated import build_of
from tests import needs
from tests.converters.locked_tools import prepared

pytestmark = [pytest.mark.fpga, pytest.mark.timeout(3600)]
MODELS = Path(os.environ.get("EDGEML_MODELS", Path(__file__).parents[4] / "shared" / "models"))
LANES = 8
SAMPLES = 16


def _of(name: str) -> tuple[Program, np.ndarray, np.ndarray]:
    """A model's program, codes of its input, and what they must give."""
    folder = MODELS / name
    if not folder.is_dir():
        pytest.skip(f"there is no model in {folder}")
    samples = np.load(folder / "calibration.npz")["x"].astype(np.float32)
    graph = integer_graph((folder / "float.onnx").read_bytes(), samples[:64])
    codes = encode_input(graph, samples[:SAMPLES])
    return program(schedule(graph, LANES)), codes, run(graph, codes)


@pytest.mark.parametrize("name", ["kws_dscnn", "cifar_resnet8"])
def test_a_network_of_mlperf_tiny_is_bit_exact(name: str, tmp_path: Path) -> None:
    needs.program("verilator", "verilator")
    made, codes, wanted = _of(name)
    np.testing.assert_array_equal(simulate(made, codes, folder=tmp_path).codes, wanted)


@pytest.mark.usefixtures("kept_toolchains")
@pytest.mark.parametrize(
    ("name", "board"), [("kws_dscnn", "ulx3s-25k"), ("cifar_resnet8", "ulx3s-85k")]
)
def test_its_engine_fits_and_meets_the_clock(name: str, board: str, tmp_path: Path) -> None:
    prepared(TOOLCHAIN)
    size = Size.of(_of(name)[0])
    built = synthesise(
        size, boards()[board], tmp_path, build=build_of(size), clock_mhz=50, seeds=(1, 2)
    )
    assert built.fmax_mhz >= 50
    assert all(built.used[name] <= built.available[name] for name in built.used)
