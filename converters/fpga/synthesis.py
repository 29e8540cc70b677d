"""From an engine's Verilog to a bitstream, with the open tools of the toolchain `fpga-open`.

Timing is a gate: nextpnr is never told to let it fail. Each placer seed gives a result of its own,
and the quickest one's bitstream is kept. The same request gives the same bytes.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from converters.toolchains.definition import find
from converters.toolchains.exchange import ask
from converters.toolchains.store import require
from edgeml.errors import TargetError, ToolchainError
from hardware.fpga.board import Board
from hardware.fpga.program import Size
from hardware.fpga.simulated import SERIAL, SOURCES, gateware

TOOLCHAIN = "fpga-open"
_TIMEOUT_S = 3600
_RESET_CLOCKS_BITS = 8
_SILENCE_MS = 20
_OSCILLATOR_MHZ = 600  # of ECP5's PLL, which has 400 to 800
# What the tools call what a person counts.
_CELLS = {
    "ecp5": {"luts": "TRELLIS_COMB", "flip_flops": "TRELLIS_FF", "dsp": "MULT18X18D",
             "bram": "DP16KD"},
    "ice40": {"luts": "ICESTORM_LC", "dsp": "ICESTORM_DSP", "bram": "ICESTORM_RAM",
              "spram": "ICESTORM_SPRAM"},
}  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """What one placement reached."""

    seed: int
    fmax_mhz: float


@dataclass(frozen=True)
class Synthesised:
    """A bitstream, how it was made and what it takes of the FPGA."""

    bitstream: Path
    sha256: str
    requested_mhz: float
    timing: tuple[Timing, ...]
    used: dict[str, int]
    available: dict[str, int]
    netlist: Path
    tools: dict[str, str]

    @property
    def fmax_mhz(self) -> float:
        """Of the bitstream."""
        return max(timing.fmax_mhz for timing in self.timing)


def synthesise(
    size: Size,
    board: Board,
    folder: Path,
    *,
    build: str,
    clock_mhz: float = 0.0,
    seeds: Sequence[int] = (1,),
    say: Callable[[str], None] = lambda _: None,
) -> Synthesised:
    """Make the bitstream of an engine for a board.

    Args:
        size: of the engine.
        board: which FPGA and pins.
        folder: where all files go.
        build: the 32 digits that the engine says of itself.
        clock_mhz: the clock that placement must meet; the board's own if 0, never less.
        seeds: of the placer, each a placement.
        say: told what is being done.

    Raises:
        TargetError: the engine does not fit, or no placement meets the clock.
        ToolchainError: the toolchain is missing or fails.
    """
    requested = max(clock_mhz, board.clock_mhz)
    write_sources(size, board, folder, build=build, clock_mhz=requested)
    say("Synthesising with Yosys")
    _run(folder, [_yosys(board)], "Yosys cannot synthesise the engine.")
    timing: list[Timing] = []
    reports: dict[int, dict[str, Any]] = {}
    refused = ""
    for seed in seeds:
        say(f"Placing and routing with seed {seed}")
        reply = ask(
            require(TOOLCHAIN),
            {"folder": str(folder), "commands": [_place(board, seed, requested)]},
            timeout_s=_TIMEOUT_S,
        )
        if reply["failed"] is not None:
            refused = _complaint(reply["logs"][-1])
            continue
        reports[seed] = msgspec.json.decode((folder / f"report-{seed}.json").read_bytes())
        clocks = reports[seed]["fmax"].values()
        timing.append(Timing(seed, min(clock["achieved"] for clock in clocks)))
    if not timing:
        raise TargetError(
            f"The engine cannot be placed on {board.description} at {requested:g} MHz.",
            why=f"nextpnr says: {refused}",
            fix="Use fewer lanes, a larger FPGA or a slower clock.",
        )
    best = max(timing, key=lambda item: item.fmax_mhz).seed
    say("Packing the bitstream")
    bitstream = folder / ("engine.bit" if board.family == "ecp5" else "engine.bin")
    _run(folder, [_pack(board, best, bitstream.name)], "The bitstream cannot be packed.")
    counted = reports[best]["utilization"]
    cells = _CELLS[board.family]
    return Synthesised(
        bitstream=bitstream,
        sha256=hashlib.sha256(bitstream.read_bytes()).hexdigest(),
        requested_mhz=requested,
        timing=tuple(timing),
        used={name: counted[cell]["used"] for name, cell in cells.items() if cell in counted},
        available={
            name: counted[cell]["available"] for name, cell in cells.items() if cell in counted
        },
        netlist=folder / "netlist.v",
        tools=dict(package.split("==", 1) for package in find(TOOLCHAIN).packages),
    )


def write_sources(size: Size, board: Board, folder: Path, *, build: str, clock_mhz: float) -> None:
    """Write all that is synthesised, and the pins, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*SOURCES, *SERIAL):
        (folder / name).write_text(gateware(name), "utf-8")
    (folder / "top.v").write_text(_top(size, board, build, clock_mhz), "utf-8")
    (folder / "pins").write_text(_pins(board, clock_mhz), "utf-8")


def _top(size: Size, board: Board, build: str, clock_mhz: float) -> str:
    is_spi = board.transport == "spi"
    inputs = ("sck", "cs_n", "mosi") if is_spi else ("rx",)
    output = "miso" if is_spi else "tx"
    given = size.parameters_of_verilog | {
        "IS_SPI": int(is_spi),
        "DIVIDER": max(4, round(board.clock_at(clock_mhz) * 1e6 / board.baud)),
        "TIMEOUT": int(board.clock_at(clock_mhz) * 1000 * _SILENCE_MS),
    }
    parameters = ", ".join(f".{name}({value})" for name, value in given.items())
    pins = f"{{{', '.join(inputs)}}}" if is_spi else "{2'b00, rx}"
    return f"""// The engine on {board.description}: its pins, and a reset after power is on.
module top (
    input  wire clock,
    {"".join(f"input  wire {name}," for name in inputs)}
    output wire {output},
    output wire busy,
    output wire done
);
{_clocked(board, clock_mhz)}
    reg [{_RESET_CLOCKS_BITS - 1}:0] started = 0;
    wire reset = !started[{_RESET_CLOCKS_BITS - 1}];
    always @(posedge engine_clock) if (reset) started <= started + 1'b1;
    edgeml_serial_engine #({parameters}, .BUILD(128'h{build})) engine (
        .clock(engine_clock), .reset(reset), .pins_in({pins}), .pin_out({output}), .busy(busy),
        .done(done)
    );
endmodule
"""


def _clocked(board: Board, clock_mhz: float) -> str:
    """The engine's clock: the board's, or what a PLL makes of it."""
    multiple = board.multiple_of(clock_mhz)
    if multiple == 1:
        return "    wire engine_clock = clock;"
    divider = max(1, int(_OSCILLATOR_MHZ / (board.clock_mhz * multiple)))
    return f"""    wire engine_clock;
    (* FREQUENCY_PIN_CLKI="{board.clock_mhz:g}" *)
    (* FREQUENCY_PIN_CLKOP="{board.clock_mhz * multiple:g}" *)
    EHXPLLL #(
        .CLKI_DIV(1), .CLKFB_DIV({multiple}), .CLKOP_DIV({divider}), .CLKOP_CPHASE({divider // 2}),
        .CLKOP_ENABLE("ENABLED"), .CLKOP_FPHASE(0), .FEEDBK_PATH("CLKOP"), .STDBY_ENABLE("DISABLED")
    ) pll (
        .CLKI(clock), .CLKFB(engine_clock), .CLKOP(engine_clock), .RST(1'b0), .STDBY(1'b0),
        .PHASESEL0(1'b0), .PHASESEL1(1'b0), .PHASEDIR(1'b0), .PHASESTEP(1'b0),
        .PHASELOADREG(1'b0), .PLLWAKESYNC(1'b0), .ENCLKOP(1'b0)
    );"""


def _pins(board: Board, clock_mhz: float) -> str:
    if board.family == "ice40":
        return "".join(f"set_io {name} {site}\n" for name, site in board.pins.items())
    lines: list[str] = []
    if board.multiple_of(clock_mhz) > 1:  # what the PLL makes follows from it
        lines = [f'FREQUENCY PORT "clock" {board.clock_mhz:g} MHZ;']
    for name, site in board.pins.items():
        lines += [f'LOCATE COMP "{name}" SITE "{site}";', f'IOBUF PORT "{name}" IO_TYPE=LVCMOS33;']
    return "\n".join(lines) + "\n"


def _yosys(board: Board) -> list[str]:
    synth = (
        "synth_ecp5"
        if board.family == "ecp5"
        else "synth_ice40 -dsp -spram"
        if board.resources.dsp
        else "synth_ice40"
    )
    sources = " ".join(("top.v", *SOURCES, *SERIAL))
    script = f"read_verilog {sources}; {synth} -top top -json top.json; write_verilog netlist.v"
    return ["yosys", "-q", "-p", script]


def _place(board: Board, seed: int, clock_mhz: float) -> list[str]:
    common = ["--json", "top.json", "--freq", f"{clock_mhz:g}", "--seed", str(seed), "-q"]
    common += ["--report", f"report-{seed}.json", f"--{board.part}", "--package", board.package]
    if board.family == "ice40":
        return ["nextpnr-ice40", *common, "--pcf", "pins", "--asc", f"placed-{seed}"]
    speed = ["--speed", board.speed] if board.speed else []
    return ["nextpnr-ecp5", *common, *speed, "--lpf", "pins", "--textcfg", f"placed-{seed}"]


def _pack(board: Board, seed: int, name: str) -> list[str]:
    tool = "icepack" if board.family == "ice40" else "ecppack"
    return [tool, f"placed-{seed}", name]


def _run(folder: Path, commands: list[list[str]], what: str) -> None:
    reply = ask(
        require(TOOLCHAIN), {"folder": str(folder), "commands": commands}, timeout_s=_TIMEOUT_S
    )
    if reply["failed"] is not None:
        raise ToolchainError(what, why=f"It says: {_complaint(reply['logs'][-1])}")


def _complaint(log: str) -> str:
    errors = re.findall(r"^ERROR: (.*)$", log, re.MULTILINE)
    return errors[-1] if errors else (log.strip().splitlines() or ["nothing"])[-1]
