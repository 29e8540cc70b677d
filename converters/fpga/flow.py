"""An integer graph to everything that a device and a proof need of an engine for it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from converters.fpga.estimate import Need, need
from converters.fpga.integer.graph import ArgMax, IntegerGraph
from converters.fpga.program import program as images_of
from converters.fpga.schedule import Schedule, schedule
from converters.fpga.synthesis import TOOLCHAIN, Timing, synthesise, write_sources
from converters.toolchains.store import require
from edgeml.errors import TargetError
from hardware.fpga import registers
from hardware.fpga.artifact import Artifact, HostSide
from hardware.fpga.board import Board, boards, find
from hardware.fpga.program import Program, Size
from hardware.fpga.simulated import build_of

Settings = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, eq=False)
class Build:
    """What was made, and the plain facts of it; `timing` is empty where no bitstream was made."""

    artifact: Artifact
    schedule: Schedule
    program: Program
    size: Size
    netlist_mismatches: int | None
    timing: tuple[Timing, ...]
    requested_mhz: float
    used: dict[str, int]
    available: dict[str, int]
    files: dict[str, Path]
    tools: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class Fit:
    """An engine that holds a network, and what it takes of the part, estimated."""

    size: Size
    need: Need
    cycles: int


def fits(graph: IntegerGraph, settings: Settings) -> Fit:
    """Whether a part holds an engine for a graph, before anything is synthesised.

    Raises:
        TargetError: it cannot; the error has the estimate.
    """
    made = images_of(schedule(graph, int(settings["lanes"])))
    size = Size.of(made)
    spram, dsp = int(settings.get("spram", 0)), int(settings["dsp"])
    wanted = need(size, str(settings["family"]), has_dsp=dsp > 0, spram=spram)
    lacking = [
        f"{count:,} {name} of {int(settings.get(name, 0)):,}"
        for name, count in msgspec.structs.asdict(wanted).items()
        if count > int(settings.get(name, 0))
    ]
    if lacking:
        raise TargetError(
            f"The network does not fit {settings['part']}.",
            why=f"An engine of {size.lanes} lanes for it would take about {', '.join(lacking)} "
            f"({len(made.weights):,} bytes of weights, "
            f"{made.activation_words * size.lanes:,} of activations).",
            fix="Choose a larger FPGA or a smaller model.",
        )
    return Fit(size, wanted, made.cycles)


def build(
    graph: IntegerGraph,
    settings: Settings,
    folder: Path,
    *,
    clock_mhz: float,
    until: str = "bitstream",
    seeds: int = 1,
    samples: np.ndarray | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Build:
    """Make the program, the gateware and, where `until` says so, the bitstream.

    Args:
        graph: what is computed.
        settings: of the target: lanes, family, part, and board where one is named.
        folder: where all files go.
        clock_mhz: that placement must meet.
        until: `rtl` or `bitstream`.
        seeds: how many placements are tried.
        samples: codes of the input, for the netlist; it is not simulated yet.
        say: told what is being done.

    Raises:
        TargetError: it does not fit, or no placement meets the clock.
        ToolchainError: a tool is missing or fails.
    """
    begun = time.monotonic()
    del samples
    folder.mkdir(parents=True, exist_ok=True)
    board = _board(settings)
    scheduled = schedule(graph, int(settings["lanes"]))
    program = images_of(scheduled)
    size = Size.of(program)
    digits = build_of(size)
    files = _images(program, folder) | {"constants": _constants(size, digits, folder)}
    made = None
    if until == "bitstream":
        require(TOOLCHAIN)
        made = synthesise(
            size,
            board,
            folder,
            build=digits,
            clock_mhz=clock_mhz,
            seeds=range(1, seeds + 1),
            say=say,
        )
        files["bitstream"] = made.bitstream
    else:
        write_sources(size, board, folder, build=digits, clock_mhz=clock_mhz)
    files["top"] = folder / "top.v"
    artifact = Artifact(
        program=program,
        size=size,
        build=digits,
        host=_host(graph),
        board=board.name,
        clock_mhz=board.clock_at(clock_mhz),
        bitstream=made.bitstream.read_bytes() if made else b"",
        bitstream_sha256=made.sha256 if made else "",
    )
    return Build(
        artifact=artifact,
        schedule=scheduled,
        program=program,
        size=size,
        netlist_mismatches=None,
        timing=made.timing if made else (),
        requested_mhz=made.requested_mhz if made else max(clock_mhz, board.clock_mhz),
        used=made.used if made else {},
        available=made.available if made else {},
        files=files,
        tools=made.tools if made else {},
        seconds=time.monotonic() - begun,
    )


def _board(settings: Settings) -> Board:
    if named := str(settings.get("board", "")):
        return find(named)
    for board in boards().values():
        if (board.family, board.part) == (settings["family"], settings["part"]):
            return board
    raise TargetError(
        f"No board with {settings['part']} is known.",
        why=f"Known are: {', '.join(boards())}.",
        fix="Name a board file (docs/fpga-engine.md).",
    )


def _host(graph: IntegerGraph) -> HostSide:
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


def _images(program: Program, folder: Path) -> dict[str, Path]:
    """The memories' content as 32-bit words in hexadecimal, as the bus has them."""
    found = {}
    for name, words in program.images().items():
        found[name] = folder / f"{name}.hex"
        found[name].write_text("".join(f"{word:08x}\n" for word in words), "ascii")
    return found


def _constants(size: Size, build_digits: str, folder: Path) -> Path:
    """The register map as a C header, for drivers of one's own."""
    names = ("ID", "VERSION", "BUILD", "SIZE", "CONTROL", "STATUS", "CYCLES", "INDEX", "LAYER")
    lines = [f"#define EDGEML_{name} {getattr(registers, name)}" for name in (*names, "SCRATCH")]
    lines += [
        f"#define EDGEML_{name.upper()} {base:#x}" for name, base in registers.MEMORIES.items()
    ]
    lines += [f"#define EDGEML_ACTIVATIONS {registers.ACTIVATIONS:#x}"]
    lines += [f"#define EDGEML_LANES {size.lanes}", f'#define EDGEML_BUILD_ID "{build_digits}"']
    path = folder / "edgeml_engine.h"
    path.write_text("/* Addresses count 32-bit words. */\n" + "\n".join(lines) + "\n", "ascii")
    return path
