"""How the tools are called for each family of FPGAs, and what they count."""

from collections.abc import Mapping, Sequence
from typing import Any

from converters.fpga.design import Design
from converters.fpga.top import NAME, PINS
from hardware.fpga.board import Board

JSON, NETLIST = f"{NAME}.json", "netlist.v"
_OPEN, _GOWIN = "fpga-open", "fpga-gowin"
# Multipliers and LUTs as RAM stay unused on Gowin: nextpnr has no delays of them. `booth` makes
# multipliers of LUTs smaller.
_SYNTH_GOWIN = "proc; booth; synth_gowin -noiopads -nodsp -nolutram -family"
_PADS = "iopadmap -bits -inpad IBUF O:I -outpad OBUF I:O"
# What nextpnr calls what a person counts; a carry of Gowin's takes the place of a LUT.
_CELLS: dict[str, dict[str, tuple[str, ...]]] = {
    "ecp5": {"luts": ("TRELLIS_COMB",), "flip_flops": ("TRELLIS_FF",), "dsp": ("MULT18X18D",),
             "bram": ("DP16KD",)},
    "ice40": {"luts": ("ICESTORM_LC",), "dsp": ("ICESTORM_DSP",), "bram": ("ICESTORM_RAM",),
              "spram": ("ICESTORM_SPRAM",)},
    "gowin": {"luts": ("LUT4", "ALU"), "flip_flops": ("DFF",), "bram": ("BSRAM",)},
}  # fmt: skip


def toolchain_of(family: str) -> str:
    """The toolchain that makes bitstreams for a family."""
    return _GOWIN if family == "gowin" else _OPEN


def doctor_of(family: str) -> str:
    """What to do where a family's tools fail."""
    doctor = f"edgeml toolchain doctor {toolchain_of(family)}"
    return f"Run: {doctor}. If it finds nothing, report this as a fault."


def synthesise(board: Board, design: Design, sources: Sequence[str]) -> list[str]:
    """What is behind the bus is mapped in one piece, so that its netlist can be simulated."""
    kept = f"*{design.with_bus}*"
    steps = (
        f"read_verilog -defer {' '.join(sources)}",
        f"hierarchy -top {NAME}",
        f"setattr -mod -set keep_hierarchy 1 {kept}",
        f"{_synth(board)} -top {NAME}",
        f"write_verilog -noattr {NETLIST}",
        f"setattr -mod -unset keep_hierarchy {kept}",
        "flatten",
        "opt_clean",
        *([f"{_PADS} {NAME}"] if board.family == "gowin" else []),
        f"write_json {JSON}",
    )
    return ["yosys", "-q", "-p", "; ".join(steps)]


def _synth(board: Board) -> str:
    if board.family == "ecp5":
        return "synth_ecp5"
    if board.family == "gowin":
        return f"{_SYNTH_GOWIN} {board.part[:4].lower()}"
    return "synth_ice40 -dsp -spram" if board.resources.dsp else "synth_ice40"


def place(board: Board, seed: int, clock_mhz: float) -> list[str]:
    """Place and route; it fails where the clock is not met."""
    common = ["--json", JSON, "--freq", f"{clock_mhz:g}", "--seed", str(seed), "-q"]
    common += ["--report", report_of(seed)]
    if board.family == "gowin":
        part = ["--device", f"{board.package}{board.speed}", "--vopt", f"family={board.part}"]
        made = ["--vopt", f"cst={PINS}", "--write", placed_of(seed), "--sdf", delays_of(seed)]
        return ["nextpnr-gowin", *common, *part, *made]
    common += [f"--{board.part}", "--package", board.package]
    if board.family == "ice40":
        return ["nextpnr-ice40", *common, "--pcf", PINS, "--asc", placed_of(seed)]
    speed = ["--speed", board.speed] if board.speed else []
    return ["nextpnr-ecp5", *common, *speed, "--lpf", PINS, "--textcfg", placed_of(seed)]


def placement_of(board: Board, seed: int) -> tuple[str, ...]:
    """The files that `place` makes, the report first."""
    delays = (delays_of(seed),) if board.family == "gowin" else ()
    return report_of(seed), placed_of(seed), *delays


def pack(board: Board, seed: int) -> list[str]:
    """Make the bitstream; its name is the last argument."""
    if board.family == "gowin":  # the suffix says to openFPGALoader what it is
        return ["gowin_pack", "-d", board.part, placed_of(seed), "-o", "bitstream.fs"]
    tool = "icepack" if board.family == "ice40" else "ecppack"
    return [tool, placed_of(seed), "bitstream.bit"]


def placed_of(seed: int) -> str:
    """The file of a placement."""
    return f"placed-{seed}"


def report_of(seed: int) -> str:
    """The file of what nextpnr counted."""
    return f"report-{seed}.json"


def delays_of(seed: int) -> str:
    """The file of all delays, of Gowin's FPGAs."""
    return f"delays-{seed}.sdf"


def counted(family: str, utilization: Mapping[str, Any], which: str) -> dict[str, int]:
    """What a report says is `used` or `available`, by the names of a board's resources.

    Of what several kinds of cells share, the first kind says how much there is.
    """
    found: dict[str, int] = {}
    for name, cells in _CELLS[family].items():
        kinds = [cell for cell in cells if cell in utilization]
        if kinds and which == "available":
            found[name] = utilization[kinds[0]]["available"]
        elif kinds:
            found[name] = sum(utilization[cell]["used"] for cell in kinds)
    return found
