"""What an engine does, layer by layer: rows for a table, and a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

from converters.fpga.estimate import cycles_of
from converters.fpga.flow import Realised
from converters.fpga.schedule import Schedule
from hardware.fpga import registers

_REGISTERS = (
    *("ID", "VERSION", "BUILD", "SIZE", "CONTROL", "STATUS", "CYCLES", "INDEX", "LAYER", "SCRATCH"),
    *("START", "STOP", "BUSY", "DONE", "ERROR_SHIFT"),
)
_SUBTITLE = "estimated from the loops; darker: more of the lanes are busy"
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


def svg(scheduled: Schedule) -> str:
    """The layers over the clocks of one inference; a bar is as dark as the lanes are busy."""
    table = rows(scheduled)
    total = sum(row.cycles for row in table)
    height = _TOP + _HEIGHT * len(table) + 16
    box = f'viewBox="0 0 {_WIDTH} {height}" role="img"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="12">',
        f"<title>Schedule of {len(table)} layers, {total:,} cycles</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="20" font-size="14">{total:,} cycles on {scheduled.lanes} lanes</text>',
        f'<text x="8" y="38" fill="#555555">{_SUBTITLE}</text>',
    ]
    at = 0
    for number, row in enumerate(table):
        y = _TOP + _HEIGHT * number
        x = _LEFT + _BAR * at / total
        width = max(1.0, _BAR * row.cycles / total)
        told = f"{escape(row.kind)} {row.output}: {row.cycles:,} cycles, {row.macs:,} MACs"
        place = f'x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{_HEIGHT - 6}"'
        shade = f'fill="#1f5fa8" fill-opacity="{0.25 + 0.75 * row.use:.2f}"'
        parts += [
            f'<text x="8" y="{y + 14}">{escape(row.name[-28:])}</text>',
            f"<rect {place} {shade}><title>{told}, lanes {row.use:.0%} busy</title></rect>",
            f'<text x="{_LEFT + _BAR + 8}" y="{y + 14}">{row.cycles:,} ({row.use:.0%})</text>',
        ]
        at += row.cycles
    return "\n".join([*parts, "</svg>\n"])


def constants(parameters: Mapping[str, int | str], build: str, made: Realised) -> str:
    """The register map as a C header, for drivers of one's own."""
    lines = [
        "/* Addresses count 32-bit words. */",
        *(f"#define EDGEML_{name} {getattr(registers, name)}" for name in _REGISTERS),
        *(f"#define EDGEML_{name.upper()} {base:#x}" for name, base in registers.MEMORIES.items()),
        f"#define EDGEML_ACTIVATIONS {registers.ACTIVATIONS:#x}",
        f"#define EDGEML_OUTPUTS {registers.OUTPUTS:#x}",
        *(
            f"#define EDGEML_{name} {value}"
            for name, value in parameters.items()
            if name != "BUILD"
        ),
        f'#define EDGEML_BUILD_ID "{build}"',
        f"#define EDGEML_CLOCK_HZ {round(made.clock_mhz * 1e6)}",
        f'#define EDGEML_BITSTREAM_SHA256 "{made.placed.sha256 if made.placed else ""}"',
    ]
    return "\n".join(lines) + "\n"
