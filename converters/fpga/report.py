"""What gateware does, layer by layer: rows for a table, and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from converters.fpga.estimate import cycles_of
from converters.fpga.flow import Realised
from converters.fpga.schedule import Schedule
from hardware.fpga import registers
from hardware.fpga.program import DESCRIPTOR_WORDS, Program

_REGISTERS = (
    *("ID", "VERSION", "BUILD", "SIZE", "CONTROL", "STATUS", "CYCLES", "INDEX", "LAYER", "SCRATCH"),
    *("INPUT", "START", "STOP", "START_BANK", "ENTRY_SHIFT", "BUSY", "DONE", "BANK", "ERROR_SHIFT"),
)
_SUBTITLE = "estimated from the loops; stronger: more of the lanes are busy"
_SUBTITLE_OF_LOGIC = "estimated by da4ml from the depth of the adders; stronger: more LUTs"
_WIDTH, _LEFT, _BAR, _HEIGHT, _TOP = 900, 220, 560, 22, 48


@dataclass(frozen=True)
class Row:
    """One loop nest: its clocks, its multiplications, and how much of the lanes they keep busy."""

    name: str
    kind: str
    output: str
    cycles: int
    macs: int
    use: float


def rows(scheduled: Schedule) -> tuple[Row, ...]:
    """Every loop nest in its order."""
    found = []
    for step in scheduled.steps:
        clocks = cycles_of(step, scheduled.lanes)
        # A lane without a channel multiplies zeros, which is no work.
        of = step.source if step.lanewise else step.target
        channels = sum(channel >= 0 for channel in of.channels)
        macs = step.rows * step.pixels * step.taps * channels
        found.append(
            Row(
                name=step.name,
                kind=step.kind,
                output=" x ".join(map(str, (step.rows, step.pixels, channels))),
                cycles=clocks,
                macs=macs,
                use=macs / (clocks * scheduled.lanes),
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class Bar:
    """A layer in a picture: where it lies, how dark it is, and what is written beside it."""

    name: str
    begin: float
    length: float
    shade: float
    told: str
    beside: str


def svg(scheduled: Schedule) -> str:
    """The layers over the clocks of one inference; a bar is as strong as the lanes are busy."""
    table = rows(scheduled)
    bars, at = [], 0
    for row in table:
        told = f"{row.kind} {row.output}: {row.cycles:,} cycles, {row.macs:,} MACs"
        bars.append(
            Bar(
                name=row.name,
                begin=at,
                length=row.cycles,
                shade=row.use,
                told=f"{told}, lanes {row.use:.0%} busy",
                beside=f"{row.cycles:,} ({row.use:.0%})",
            )
        )
        at += row.cycles
    return picture(f"{at:,} cycles on {scheduled.lanes} lanes", _SUBTITLE, bars)


def svg_of_logic(layers: Sequence[Mapping[str, Any]], cycles: int) -> str:
    """The layers of unrolled logic over the clocks of one sample; the strongest has the most LUTs.

    Args:
        layers: `name`, `kind`, `luts`, and the levels of logic between `from` and `to`.
        cycles: from input to output.
    """
    most = max(layer["luts"] for layer in layers)
    deepest = max(layer["to"] for layer in layers)
    clock = cycles / deepest if deepest else 0.0
    bars = []
    for layer in layers:
        begin, end = layer["from"] * clock, layer["to"] * clock
        place = f"clocks {begin:.1f} to {end:.1f}, about {layer['luts']:,.0f} LUTs"
        bars.append(
            Bar(
                name=layer["name"],
                begin=begin,
                length=end - begin,
                shade=layer["luts"] / most if most else 0.0,
                told=f"{layer['kind']}: {place}",
                beside=f"{layer['luts']:,.0f} LUTs",
            )
        )
    total = sum(layer["luts"] for layer in layers)
    title = f"{cycles} clocks of logic, about {total:,.0f} LUTs"
    return picture(title, _SUBTITLE_OF_LOGIC, bars)


def picture(title: str, subtitle: str, bars: Sequence[Bar]) -> str:
    """Bars below each other, as long as all of them."""
    whole = max(bar.begin + bar.length for bar in bars) or 1.0
    height = _TOP + _HEIGHT * len(bars) + 16
    box = f'viewBox="0 0 {_WIDTH} {height}" role="img"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="12">',
        f"<title>Schedule of {len(bars)} layers: {escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="20" font-size="14">{escape(title)}</text>',
        f'<text x="8" y="38" fill="#555555">{escape(subtitle)}</text>',
    ]
    for number, bar in enumerate(bars):
        y = _TOP + _HEIGHT * number
        x = _LEFT + _BAR * bar.begin / whole
        width = max(1.0, _BAR * bar.length / whole)
        place = f'x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{_HEIGHT - 6}"'
        shade = f'fill="#1f5fa8" fill-opacity="{0.25 + 0.75 * bar.shade:.2f}"'
        parts += [
            f'<text x="8" y="{y + 14}">{escape(bar.name[-28:])}</text>',
            f"<rect {place} {shade}><title>{escape(bar.told)}</title></rect>",
            f'<text x="{_LEFT + _BAR + 8}" y="{y + 14}">{escape(bar.beside)}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])


def of_program(program: Program) -> dict[str, int]:
    """What a driver of one's own must know of a program; places are those of the first bank."""
    words = DESCRIPTOR_WORDS * program.layers
    found = {"BANKS": program.banks, "ENTRY_OF_BANK": words, "INPUT_WORDS": program.input_words}
    of_word = program.lanes // 4
    found["INPUT_PLACE"] = registers.ACTIVATIONS + program.input.address * of_word
    if program.output:
        found["OUTPUT_PLACE"] = registers.ACTIVATIONS + program.output.address * of_word
        found["OUTPUT_WORDS"] = program.output.words(program.lanes) * of_word
    return found


def constants(parameters: Mapping[str, int | str], build: str, made: Realised) -> str:
    """The register map as a C header, for drivers of one's own; `parameters` are of the gateware.

    `TABLES` is where the tables are; how many there are is `TABLE_COUNT`.
    """
    lines = [
        "/* Addresses count 32-bit words. */",
        *(f"#define EDGEML_{name} {getattr(registers, name)}" for name in _REGISTERS),
        *(f"#define EDGEML_{name.upper()} {base:#x}" for name, base in registers.MEMORIES.items()),
        f"#define EDGEML_ACTIVATIONS {registers.ACTIVATIONS:#x}",
        f"#define EDGEML_OUTPUTS {registers.OUTPUTS:#x}",
        *(
            f"#define EDGEML_{'TABLE_COUNT' if name == 'TABLES' else name} {value}"
            for name, value in parameters.items()
            if name != "BUILD"
        ),
        f'#define EDGEML_BUILD_ID "{build}"',
        f"#define EDGEML_CLOCK_HZ {round(made.clock_mhz * 1e6)}",
        f'#define EDGEML_BITSTREAM_SHA256 "{made.placed.sha256 if made.placed else ""}"',
    ]
    return "\n".join(lines) + "\n"
