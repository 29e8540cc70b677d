"""Networks of MLPerf Tiny on the gateware, and bitstreams for them: `make test-fpga`."""

import os
from pathlib import Path

import numpy as np
import pytest

from cloud_sync.evidence import Verdict
from converters.fpga import built
from converters.fpga.commands import toolchain_of
from converters.fpga.integer.from_onnx import integer_graph
from converters.fpga.integer.graph import IntegerGraph
from converters.fpga.integer.reference import encode_input, run
from converters.fpga.program import program
from converters.fpga.schedule import schedule
from converters.fpga.simulate import simulate
from converters.fpga.synthesis import TOOLCHAIN
from hardware.fpga.far import moved
from hardware.profiles import profiles
from tests import needs
from tests.converters.locked_tools import prepared

from .small_nets import CODES, net_of_two_layers, silent

pytestmark = [pytest.mark.fpga, pytest.mark.timeout(7200)]
MODELS = Path(os.environ.get("EDGEML_MODELS", Path(__file__).parents[4] / "shared" / "models"))
ENGINE: dict[str, str | int | float | bool] = {"architecture": "engine", "seeds": 1}
SAMPLES = 16


@pytest.fixture(autouse=True)
def verilator() -> None:
    needs.program("verilator", "verilator")
    needs.program("g++", "g++")


def _of(name: str) -> tuple[IntegerGraph, np.ndarray]:
    """A model as integers, and codes of its input."""
    folder = MODELS / name
    if not folder.is_dir():
        pytest.skip(f"there is no model in {folder}")
    samples = np.load(folder / "calibration.npz")["x"].astype(np.float32)
    graph = integer_graph((folder / "float.onnx").read_bytes(), samples[:64])
    return graph, encode_input(graph, samples[:SAMPLES])


@pytest.mark.parametrize("is_far", [False, True])
@pytest.mark.parametrize("name", ["kws_dscnn", "cifar_resnet8"])
def test_a_network_of_mlperf_tiny_is_bit_exact(name: str, is_far: bool, tmp_path: Path) -> None:
    """Also with its weights in a serial flash."""
    graph, codes = _of(name)
    near = program(schedule(graph, 8))
    made = simulate(moved(near) if is_far else near, codes, folder=tmp_path)
    np.testing.assert_array_equal(made.codes, run(graph, codes))


@pytest.mark.usefixtures("kept_toolchains")
@pytest.mark.parametrize(
    "target",
    [
        *("fpga-ice40-up5k", "fpga-ice40-hx8k", "fpga-ecp5-25k", "fpga-ecp5-45k"),
        "fpga-gowin-gw1nr9",
    ],
)
def test_a_small_engine_passes_every_gate(target: str, tmp_path: Path) -> None:
    settings = profiles()[target].settings | ENGINE | {"until": "bitstream", "lanes": 4}
    prepared(toolchain_of(str(settings["family"])))
    made = built.build(net_of_two_layers(), settings, tmp_path, CODES, silent)
    assert {gate.name: gate.result for gate in made.gates} == dict.fromkeys(
        ("rtl", "netlist", "timing", "resources"), Verdict.PASS
    )


@pytest.mark.usefixtures("kept_toolchains")
def test_a_clock_is_raised_as_far_as_placements_reach(tmp_path: Path) -> None:
    prepared(TOOLCHAIN)
    settings = profiles()["fpga-ecp5-25k"].settings | ENGINE
    settings |= {"until": "bitstream", "lanes": 4, "clock_mhz": 25.0, "fastest": True}
    made = built.build(net_of_two_layers(), settings, tmp_path, CODES, silent)
    [timing] = [gate for gate in made.gates if gate.name == "timing"]
    assert timing.result is Verdict.PASS
    assert timing.bound in {50.0, 75.0, 100.0}
    assert timing.value is not None
    assert timing.bound <= timing.value


@pytest.mark.usefixtures("kept_toolchains")
@pytest.mark.parametrize("target", ["fpga-gowin-gw1nr9", "fpga-gowin-gw2ar18"])
def test_unrolled_logic_for_gowin_passes_every_gate(target: str, tmp_path: Path) -> None:
    prepared("da4ml")
    prepared(toolchain_of("gowin"))
    settings = profiles()[target].settings | {"architecture": "dataflow", "until": "bitstream"}
    made = built.build(net_of_two_layers(), settings | {"seeds": 1}, tmp_path, CODES, silent)
    assert {gate.name: gate.result for gate in made.gates} == dict.fromkeys(
        ("rtl", "netlist", "timing", "resources"), Verdict.PASS
    )


@pytest.mark.usefixtures("kept_toolchains")
@pytest.mark.parametrize(
    ("name", "target"), [("kws_dscnn", "fpga-ecp5-25k"), ("cifar_resnet8", "fpga-ecp5-85k")]
)
def test_its_engine_fits_and_meets_the_clock(name: str, target: str, tmp_path: Path) -> None:
    prepared(TOOLCHAIN)
    graph, codes = _of(name)
    settings = profiles()[target].settings | ENGINE | {"until": "bitstream", "seeds": 2}
    made = built.build(graph, settings, tmp_path, codes[:2], silent)
    assert {gate.name: gate.result for gate in made.gates} == dict.fromkeys(
        ("rtl", "netlist", "timing", "resources"), Verdict.PASS
    )
    fmax = next(e.value for e in made.estimates if e.name == "fmax")
    assert fmax >= 50
