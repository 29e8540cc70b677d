"""Gowin's FPGAs: which clock a placement reaches, and what their targets and boards say."""

import pytest

from converters.fpga.commands import place, toolchain_of
from converters.fpga.gowin_timing import fmax_mhz
from converters.toolchains.definition import find
from edgeml.errors import ToolchainError
from hardware.fpga.board import boards
from hardware.profiles import profiles

# A block RAM, a LUT of three inputs that nextpnr gives no delay, a flip-flop behind it.
_CELLS = """(DELAYFILE (SDFVERSION "3.0")
  (CELL (CELLTYPE "top") (INSTANCE ) (DELAY (ABSOLUTE
    (INTERCONNECT ram/DO3 lut/I1 (2000:2000:2000) (2000:2000:2000))
    (INTERCONNECT clock_BUFG/O ram/CLK (260:260:260) (260:260:260))
    (INTERCONNECT clock_BUFG/O {also} (260:260:260) (260:260:260))
    (INTERCONNECT lut/F other/I0 (0:0:500) (0:0:500))
    (INTERCONNECT other/F register/D (0:0:0) (0:0:0))
    (INTERCONNECT register/Q ram/AD4 (700:700:700) (700:700:700)))))
  (CELL (CELLTYPE "BUFG") (INSTANCE clock_BUFG))
  (CELL (CELLTYPE "{kind}") (INSTANCE ram)
    (DELAY (ABSOLUTE (IOPATH CLK DO3 (3460:3460:3460) (3460:3460:3460)))))
  (CELL (CELLTYPE "LUT3") (INSTANCE lut))
  (CELL (CELLTYPE "LUT4") (INSTANCE other)
    (DELAY (ABSOLUTE (IOPATH I0 F (700:800:1000) (700:800:1000)))))
  (CELL (CELLTYPE "DFFRE") (INSTANCE register)
    (DELAY (ABSOLUTE (IOPATH CLK Q (300:350:400) (300:350:400))))
    (TIMINGCHECK (SETUPHOLD (posedge D) (posedge CLK) (250:300:340) (0:0:0))))
)
"""


def test_every_path_from_a_block_ram_counts_and_every_lut_takes_time() -> None:
    period_ps = 3460 + 2000 + 1000 + 500 + 1000 + 340
    assert fmax_mhz(_CELLS.format(kind="SPX9", also="register/CLK")) == pytest.approx(
        1e6 / period_ps
    )


@pytest.mark.parametrize(
    ("kind", "also", "named"),
    [("MULT18X18", "register/CLK", "MULT18X18"), ("SPX9", "register/CE", "BUFG")],
)
def test_a_cell_that_nobody_knows_the_delays_of_is_refused(
    kind: str, also: str, named: str
) -> None:
    """Also a clock's buffer that gives something else than a clock."""
    with pytest.raises(ToolchainError, match="cannot be said which clock") as refused:
        fmax_mhz(_CELLS.format(kind=kind, also=also))
    assert refused.value.why.endswith(f": {named}.")


@pytest.mark.parametrize(
    ("target", "name", "device"),
    [
        ("fpga-gowin-gw1nr9", "tangnano9k", "GW1NR-LV9QN88PC6/I5"),
        ("fpga-gowin-gw2ar18", "tangnano20k", "GW2AR-LV18QN88C8/I7"),
    ],
)
def test_a_target_is_its_board_and_the_device_that_nextpnr_knows(
    target: str, name: str, device: str
) -> None:
    board, settings = boards()[name], profiles()[target].settings
    for field in ("family", "part", "package", "speed", "clock_mhz"):
        assert settings[field] == getattr(board, field)
    for field in ("luts", "dsp", "bram"):
        assert settings[field] == getattr(board.resources, field)
    command = place(board, 1, board.clock_mhz)
    assert command[command.index("--device") + 1] == device
    assert "--timing-allow-fail" not in command
    assert set(board.standards) <= set(board.pins)
    assert find(toolchain_of(board.family)).name == "fpga-gowin"
