"""The clock of a placement on Gowin's FPGAs, from the delays that nextpnr writes (SDF 3.0).

For Gowin nextpnr's own analysis leaves out what begins at a block RAM, and LUTs of fewer than four
inputs and those that only lead to a flip-flop cost nothing in it. Here every path counts: where a
LUT has no delay of its own it takes the longest that a LUT has. A cell of a kind that has no delays
at all (a multiplier, LUTs as RAM) is refused, because a clock over it would prove nothing.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from typing import NamedTuple

from edgeml.errors import ToolchainError

_WIRE = re.compile(r"\(INTERCONNECT (\S+) (\S+) \((\S+)\)")
_CELL = re.compile(
    r'\(CELLTYPE "(\w+)"\)\s*\(INSTANCE ([^\s()]*)\)(.*?)(?=\(CELLTYPE|\Z)', re.DOTALL
)
_ARC = re.compile(r"\(IOPATH (\S+) (\S+) \((\S+)\)")
_SETUP = re.compile(r"\(SETUPHOLD \(\w+ (\S+)\) \(\w+ \S+\) \((\S+)\)")
_TIMED = re.compile(r"LUT[1-4]|MUX2_LUT[5-8]|ALU|DFF\w*|SP|SPX9|[IO]BUF|GSR|GOWIN_(GND|VCC)")
_REGISTERS = "DFF", "SP"
_LONGEST_LUT_PS, _LONGEST_SETUP_PS = 1100.0, 450.0  # of the slowest part, where a design has none


class _Cell(NamedTuple):
    kind: str
    name: str
    arcs: list[tuple[str, str, float]]  # from a pin to a pin
    setups: dict[str, float]


def fmax_mhz(sdf: str) -> float:
    """The clock at which every path from a register to a register has time enough.

    Args:
        sdf: of one clock, in picoseconds; the last of three delays is the longest.

    Raises:
        ToolchainError: a cell has no delays.
    """
    found = [(given, *taken.rsplit("/", 1), _longest(d)) for given, taken, d in _WIRE.findall(sdf)]
    wires = [wire for wire in found if not wire[2].startswith("CLK")]
    giving = {given.rpartition("/")[0] for given, *_ in wires}
    # A clock's buffer gives nothing else.
    cells = [cell for cell in _cells(sdf) if cell.kind != "BUFG" or cell.name in giving]
    if unknown := {cell.kind for cell in cells if not _TIMED.fullmatch(cell.kind)}:
        raise ToolchainError(
            "It cannot be said which clock the placement reaches.",
            why=f"Nothing open knows how slow these cells are: {', '.join(sorted(unknown))}.",
            fix="Report this as a fault: synthesis must not make such cells.",
        )
    paths: dict[str, list[tuple[str, float]]] = defaultdict(list)  # to a pin
    inputs: dict[str, set[str]] = defaultdict(set)
    for given, name, pin, delay in wires:
        paths[f"{name}/{pin}"].append((given, delay))
        inputs[name].add(pin)
    reached: dict[str, float] = defaultdict(float)  # how long after the clock
    for name, given, made, delay in _through(cells, inputs):
        if given.startswith("CLK"):
            reached[f"{name}/{made}"] = delay
        else:
            paths[f"{name}/{made}"].append((f"{name}/{given}", delay))
    graph = {pin: {given for given, _ in found} for pin, found in paths.items()}
    for pin in TopologicalSorter(graph).static_order():
        arrivals = (reached[given] + delay for given, delay in paths[pin])
        reached[pin] = max(arrivals, default=reached[pin])
    slowest = max(
        reached[f"{cell.name}/{pin}"] + cell.setups.get(pin, _LONGEST_SETUP_PS)
        for cell in cells
        if cell.kind.startswith(_REGISTERS)
        for pin in inputs[cell.name]
    )
    return 1e6 / slowest


def _cells(sdf: str) -> Iterator[_Cell]:
    for kind, name, body in _CELL.findall(sdf):
        if name:  # the design has none
            arcs = [(given, made, _longest(delay)) for given, made, delay in _ARC.findall(body)]
            setups = {pin: _longest(delay) for pin, delay in _SETUP.findall(body)}
            yield _Cell(kind, name, arcs, setups)


def _through(
    cells: Iterable[_Cell], inputs: dict[str, set[str]]
) -> Iterator[tuple[str, str, str, float]]:
    """The ways through cells: name, pin, pin, delay."""
    luts = [cell for cell in cells if cell.kind.startswith("LUT")]
    longest = max((delay for cell in luts for *_, delay in cell.arcs), default=_LONGEST_LUT_PS)
    for cell in cells:
        arcs = cell.arcs
        if cell.kind.startswith("LUT") and not arcs:
            arcs = [(pin, "F", longest) for pin in inputs[cell.name]]
        for arc in arcs:
            yield cell.name, *arc


def _longest(delay: str) -> float:
    return float(delay.rpartition(":")[2])
