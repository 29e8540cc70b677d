"""A small engine goes to a bitstream for a board, meets its clock, and fits."""

import hashlib
from pathlib import Path

import pytest

from converters.fpga.synthesis import TOOLCHAIN, synthesise
from hardware.fpga.board import boards
from hardware.fpga.program import Size
from hardware.fpga.simulated import build_of
from tests.converters.locked_tools import prepared

SIZE = Size(lanes=4, program=64, weights=128, parameters=32, tables=1, activations=64)


def test_every_board_file_names_the_pins_of_its_transport() -> None:
    assert {"ulx3s-25k", "ulx3s-45k", "ulx3s-85k", "icebreaker", "hx8k-breakout"} <= set(boards())
    for board in boards().values():
        assert set(board.pins) >= {"clock", "rx", "tx", "busy", "done"}
        assert len(set(board.pins.values())) == len(board.pins)


@pytest.mark.fpga
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("kept_toolchains")
def test_a_small_engine_becomes_a_bitstream(tmp_path: Path) -> None:
    prepared(TOOLCHAIN)
    board = boards()["icebreaker"]
    made = synthesise(SIZE, board, tmp_path, build=build_of(SIZE))
    assert made.sha256 == hashlib.sha256(made.bitstream.read_bytes()).hexdigest()
    assert made.fmax_mhz >= made.requested_mhz == board.clock_mhz
    assert 0 < made.used["luts"] <= made.available["luts"] == board.resources.luts
