"""From a design to everything that a device and a proof need of it, as far as was asked for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from cloud_sync.evidence import Estimate, GateResult, Verdict
from converters.fpga import netlist
from converters.fpga.built import equality_gate, resources_gate, timing_gate
from converters.fpga.candidates import (
    LANES,
    Budget,
    Candidate,
    engines,
    images,
    ranked,
    refused,
)
from converters.fpga.design import Design
from converters.fpga.estimate import Need
from converters.fpga.integer.graph import ArgMax, IntegerGraph
from converters.fpga.synthesis import Keeper, Placed, Synthesis
from edgeml.errors import TargetError
from hardware.fpga.artifact import HostSide
from hardware.fpga.board import Board, boards, find
from hardware.fpga.program import Program, Size

Settings = Mapping[str, str | int | float | bool]
UNTIL = ("rtl", "netlist", "bitstream")
AUTO = "auto"
CHIP, FLASH = PLACES = ("chip", "flash")  # where an engine's weights are
_REMARKS = {
    "rtl": "It was built until RTL: it was not synthesised, and there is no bitstream.",
    "netlist": "It was built until the netlist: it was not placed, and there is no bitstream.",
}


@dataclass(frozen=True, eq=False)
class Realised:
    """What was made of a design, and what was proven of it; `placed` where there is a bitstream."""

    board: Board
    clock_mhz: float
    placed: Placed | None
    gates: tuple[GateResult, ...]
    estimates: tuple[Estimate, ...]
    files: dict[str, Path]
    tools: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def fields(self) -> dict[str, str | float | bytes]:
        """Those that every artifact of a device has."""
        return {
            "board": self.board.name,
            "programmer": self.board.programmer,
            "clock_mhz": self.clock_mhz,
            "bitstream": self.placed.bitstream.read_bytes() if self.placed else b"",
            "bitstream_sha256": self.placed.sha256 if self.placed else "",
        }


def realise(
    design: Design,
    settings: Settings,
    folder: Path,
    proof: tuple[np.ndarray, np.ndarray],
    *,
    cycles: int,
    keeper: Keeper,
    say: Callable[[str], None] = lambda _: None,
) -> Realised:
    """Take a design as far as `until` says: its Verilog, its netlist, its bitstream.

    Where it is to be the `fastest`, the clock is raised to the next that the board's PLL gives and
    place and route reached, and all is made again, until it reaches no more.

    Args:
        design: the gateware.
        settings: of the target: family, part, `until`, clock, seeds, and board where one is named.
        folder: where all files go.
        proof: codes of the input, and what must come out; a few are run through the netlist.
        cycles: clocks of one inference.
        keeper: of finished steps.
        say: told what is being done.

    Raises:
        TargetError: it does not fit, or no placement meets the clock.
        ToolchainError: a tool is missing or fails.
    """
    make = partial(_realised, design, settings, proof=proof, cycles=cycles, keeper=keeper, say=say)
    made = make(folder, clock_mhz=float(settings["clock_mhz"]))
    while settings.get("fastest") and made.placed:
        clock = made.board.clock_at(made.placed.fmax_mhz)
        if clock <= made.clock_mhz:
            break
        try:
            faster = make(folder / f"{clock:g}-mhz", clock_mhz=clock)
        except TargetError as error:
            say(f"It stays at {made.clock_mhz:g} MHz: {error}")
            break
        made = faster
    return made


def _realised(
    design: Design,
    settings: Settings,
    folder: Path,
    *,
    clock_mhz: float,
    proof: tuple[np.ndarray, np.ndarray],
    cycles: int,
    keeper: Keeper,
    say: Callable[[str], None],
) -> Realised:
    """The same at one clock."""
    board, until = board_of(settings), str(settings["until"])
    share = float(settings.get("share", 1.0))
    work = Synthesis(design, board, folder.absolute(), clock_mhz, keeper, say)
    files = {name.replace("/", "-"): work.folder / name for name in work.sources}
    made = Realised(
        board, board.clock_at(work.requested_mhz), None, (), (), files,
        remarks=(_REMARKS[until],) if until in _REMARKS else (),
    )  # fmt: skip
    if until == "rtl":
        return made
    path = work.netlist()
    gate = _netlist_gate(work, path, proof, cycles)
    made = replace(made, files={**files, path.name: path}, tools=work.tools, gates=(gate,))
    cells = netlist.counted(path, board.family)
    if until == "netlist" or gate.result is Verdict.FAIL:
        has = {name: int(share * int(settings[name])) for name in cells if name in settings}
        fits = resources_gate({name: cells[name] for name in has}, has)
        told = counted(cells, "Yosys")
        return replace(made, gates=(*made.gates, fits), estimates=told)
    placed = work.bitstream(range(1, int(settings["seeds"]) + 1))
    return replace(
        made,
        placed=placed,
        files={**made.files, placed.bitstream.name: placed.bitstream},
        gates=(
            *made.gates,
            timing_gate(placed.fmax_mhz, placed.requested_mhz, len(placed.timing)),
            resources_gate(placed.used, {n: int(share * c) for n, c in placed.available.items()}),
        ),
        estimates=(
            Estimate(
                name="fmax",
                value=placed.fmax_mhz,
                unit="MHz",
                source="nextpnr's delays" if work.board.family == "gowin" else "nextpnr",
            ),
            *counted(placed.used, "nextpnr"),
        ),
    )


def _netlist_gate(
    work: Synthesis, path: Path, proof: tuple[np.ndarray, np.ndarray], cycles: int
) -> GateResult:
    count = netlist.samples(cycles)
    codes, wanted = (part[:count] for part in proof)
    work.say("Running the synthesised netlist in Verilator")
    family, tools = work.board.family, work.environment
    given = netlist.simulate(path, work.design, family, tools, codes, cycles=cycles)
    wrong = int((wanted != given).reshape(len(wanted), -1).any(axis=1).sum())
    said = "The synthesised netlist's outputs are the integer model's, bit for bit"
    return equality_gate("netlist", wrong, len(codes), said)


def counted(cells: Mapping[str, int], source: str) -> tuple[Estimate, ...]:
    """Resources as estimates, and who says so."""
    return tuple(
        Estimate(name=name, value=count, unit="", source=source) for name, count in cells.items()
    )


@dataclass(frozen=True)
class Fit:
    """An engine that holds a network, and what it takes of the part, estimated."""

    program: Program
    size: Size
    need: Need
    cycles: int


def fits(graph: IntegerGraph, settings: Settings) -> Fit:
    """The engine for a graph, of the lanes that settings name, or the best of all.

    Raises:
        TargetError: none fits; the error has the estimate.
    """
    budget = budget_of(settings)
    found = tuple(engines_of(graph, budget, settings))
    for best in ranked(found, budget)[:1]:
        made = images(graph, best)
        return Fit(made, Size.of(made), best.need, best.cycles)
    raise refused(found, budget)


def budget_of(settings: Settings) -> Budget:
    """What may be taken of the part, with its board's flash and the clock that it makes."""
    board = board_of(settings)
    clock = board.clock_at(max(float(settings["clock_mhz"]), board.clock_mhz))
    return Budget.of(settings, clock_mhz=clock, has_flash=bool(board.flash))


def engines_of(graph: IntegerGraph, budget: Budget, settings: Settings) -> Iterator[Candidate]:
    """The engines among which settings leave a choice."""
    lanes, place = settings.get("lanes", AUTO), settings.get("weights", AUTO)
    counts = LANES if lanes == AUTO else (int(lanes),)
    places = (False, True) if place == AUTO else (place == FLASH,)
    return engines(graph, budget, counts, places)


def board_of(settings: Settings) -> Board:
    """The board that settings name, or the first with their part.

    Raises:
        TargetError: there is none, or it has another part.
    """
    wanted = settings["family"], settings["part"]
    if named := str(settings.get("board", "")):
        board = find(named)
        if (board.family, board.part) != wanted:
            raise TargetError(
                f"The board {board.name} has another FPGA than the target.",
                why=f"It has {board.family} {board.part}, the target {' '.join(map(str, wanted))}.",
                fix="Name the target of the board's FPGA, or another board.",
            )
        return board
    for board in boards().values():
        if (board.family, board.part) == wanted:
            return board
    raise TargetError(
        f"No board with {settings['part']} is known.",
        why=f"Known are: {', '.join(boards())}.",
        fix="Name a board file (docs/fpga-engine.md).",
    )


def host_side(graph: IntegerGraph) -> HostSide:
    """What the host computes around a graph's gateware."""
    host, given = graph.host, graph.tensors[graph.input]
    is_index = isinstance(graph.layers[-1], ArgMax)
    return HostSide(
        input_shape=tuple(host.input_shape),
        input_order=tuple(host.input_order.tolist()),
        gain=float(host.gain),
        offset=float(host.offset),
        low=given.low,
        high=given.high,
        output_shape=tuple(host.output_shape),
        output_order=tuple(host.output_order.tolist()),
        output_scale=1.0 if is_index else float(graph.tensors[graph.output].scale),
        output_dtype="int64" if is_index else "float32",
        softmax=host.softmax,
    )
