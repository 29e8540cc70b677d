"""The C header for drivers of one's own: all that a start needs, each name once."""

import re

import pytest

from converters.fpga import report
from converters.fpga.flow import Realised
from converters.fpga.program import program
from converters.fpga.schedule import schedule
from hardware.fpga import registers as at
from hardware.fpga.board import find
from hardware.fpga.program import Size

from .fpga.small_nets import net_of_two_layers


@pytest.mark.parametrize("banks", [1, 2])
def test_a_header_names_everything_once_and_says_where_each_bank_begins(banks: int) -> None:
    made = program(schedule(net_of_two_layers(), 8, banks=banks))
    realised = Realised(find("icebreaker"), 12.0, None, (), (), {})
    parameters = {**Size.of(made).parameters_of_verilog, **report.of_program(made)}
    header = report.constants(parameters, "0" * 32, realised)
    lines = re.findall(r"^#define EDGEML_(\w+) (.+)$", header, re.MULTILINE)
    said = dict(lines)
    assert len(said) == len(lines), "a name is defined twice"
    assert int(said["TABLES"], 16) == at.MEMORIES["tables"]
    assert said["TABLE_COUNT"] == "1"
    assert (int(said["START_BANK"]), int(said["ENTRY_SHIFT"])) == (at.START_BANK, at.ENTRY_SHIFT)
    assert int(said["BANKS"]) == banks
    assert int(said["ENTRY_OF_BANK"]) * banks * 4 == len(made.program)
    assert made.output
    second = made.output.of_bank(1, 8).address * 2 + at.ACTIVATIONS
    assert int(said["OUTPUT_PLACE"]) + int(said["OUTPUT_WORDS"]) == second
    assert int(said["INPUT_PLACE"]) == at.ACTIVATIONS + made.input.address * 2
