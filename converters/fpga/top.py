"""What a board needs around gateware: a module with its pins, its clock, and where the pins are."""

from collections.abc import Mapping
from pathlib import Path

from converters.fpga.design import Design
from hardware.fpga.board import Board

NAME = "top"
PINS = "pins"
_FLASH = """output wire flash_sck, output wire flash_cs_n, output wire flash_mosi,
    input  wire flash_miso,"""
_RESET_CLOCKS_BITS = 8
_SILENCE_MS = 20
_OSCILLATOR_MHZ = 600  # of ECP5's PLL, which has 400 to 800


def write_sources(design: Design, board: Board, folder: Path, *, clock_mhz: float) -> list[str]:
    """Write all that is synthesised, and the pins, into a folder; the Verilog's file names."""
    files = {f"{NAME}.v": _top(design, board, clock_mhz), **design.sources}
    for name, text in {**files, PINS: _pins(board, _sites(design, board), clock_mhz)}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return list(files)


def _top(design: Design, board: Board, clock_mhz: float) -> str:
    is_spi = board.transport == "spi"
    inputs = ("sck", "cs_n", "mosi") if is_spi else ("rx",)
    output = "miso" if is_spi else "tx"
    given = {
        **design.parameters,
        "IS_SPI": int(is_spi),
        "DIVIDER": max(4, round(board.clock_at(clock_mhz) * 1e6 / board.baud)),
        "TIMEOUT": int(board.clock_at(clock_mhz) * 1000 * _SILENCE_MS),
    }
    parameters = ", ".join(f".{name}({value})" for name, value in given.items())
    pins = f"{{{', '.join(inputs)}}}" if is_spi else "{2'b00, rx}"
    flash = "".join(f", .flash_{name}(flash_{name})" for name in board.flash) * bool(design.far)
    return f"""// The gateware on {board.description}: its pins, and a reset after power is on.
module {NAME} (
    input  wire clock,
    {"".join(f"input  wire {name}," for name in inputs)}
    {_FLASH if design.far else ""}
    output wire {output},
    output wire busy,
    output wire done
);
{_clocked(board, clock_mhz)}
    reg [{_RESET_CLOCKS_BITS - 1}:0] started = 0;
    wire reset = !started[{_RESET_CLOCKS_BITS - 1}];
    always @(posedge inner_clock) if (reset) started <= started + 1'b1;
    {design.with_pins} #({parameters}) gateware (
        .clock(inner_clock), .reset(reset), .pins_in({pins}), .pin_out({output}), .busy(busy),
        .done(done){flash}
    );
endmodule
"""


def _clocked(board: Board, clock_mhz: float) -> str:
    """The gateware's clock: the board's, or what a PLL makes of it."""
    multiple = board.multiple_of(clock_mhz)
    if multiple == 1:
        return "    wire inner_clock = clock;"
    divider = max(1, int(_OSCILLATOR_MHZ / (board.clock_mhz * multiple)))
    return f"""    wire inner_clock;
    (* FREQUENCY_PIN_CLKI="{board.clock_mhz:g}" *)
    (* FREQUENCY_PIN_CLKOP="{board.clock_mhz * multiple:g}" *)
    EHXPLLL #(
        .CLKI_DIV(1), .CLKFB_DIV({multiple}), .CLKOP_DIV({divider}), .CLKOP_CPHASE({divider // 2}),
        .CLKOP_ENABLE("ENABLED"), .CLKOP_FPHASE(0), .FEEDBK_PATH("CLKOP"), .STDBY_ENABLE("DISABLED")
    ) pll (
        .CLKI(clock), .CLKFB(inner_clock), .CLKOP(inner_clock), .RST(1'b0), .STDBY(1'b0),
        .PHASESEL0(1'b0), .PHASESEL1(1'b0), .PHASEDIR(1'b0), .PHASESTEP(1'b0),
        .PHASELOADREG(1'b0), .PLLWAKESYNC(1'b0), .ENCLKOP(1'b0)
    );"""


def _sites(design: Design, board: Board) -> dict[str, str]:
    """The FPGA's pins, by the names of the module's ports."""
    flash = {f"flash_{name}": site for name, site in board.flash.items()}
    return {**board.pins, **(flash if design.far else {})}


def _pins(board: Board, sites: Mapping[str, str], clock_mhz: float) -> str:
    if board.family == "ice40":
        return "".join(f"set_io {name} {site}\n" for name, site in sites.items())
    standards = {name: board.standards.get(name, "LVCMOS33") for name in sites}
    if board.family == "gowin":
        return "".join(
            f'IO_LOC "{name}" {site};\nIO_PORT "{name}" IO_TYPE={standards[name]};\n'
            for name, site in sites.items()
        )
    lines: list[str] = []
    if board.multiple_of(clock_mhz) > 1:  # what the PLL makes follows from it
        lines = [f'FREQUENCY PORT "clock" {board.clock_mhz:g} MHZ;']
    for name, site in sites.items():
        lines.append(f'LOCATE COMP "{name}" SITE "{site}";')
        lines.append(f'IOBUF PORT "{name}" IO_TYPE={standards[name]};')
    return "\n".join(lines) + "\n"
