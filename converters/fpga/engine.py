"""The architecture `engine`: one MAC array, one layer after the other, any net that fits."""

from pathlib import Path

import numpy as np

from cloud_sync.evidence import Estimate, GateResult
from converters.fpga import flow, report
from converters.fpga.built import (
    Implementation,
    Say,
    Settings,
    equality_gate,
    resources_gate,
    rtl_gate,
    timing_gate,
)
from converters.fpga.integer.graph import IntegerGraph
from converters.fpga.integer.reference import run
from converters.fpga.simulate import simulate

SUFFIX = "fpga"


def build(
    graph: IntegerGraph, settings: Settings, folder: Path, codes: np.ndarray, say: Say
) -> Implementation:
    """Build an engine for a graph and run its Verilog; see `converters.fpga.built.build`."""
    clock = float(settings["clock_mhz"])
    folder = folder.absolute()  # toolchains run elsewhere
    flow.fits(graph, settings)
    made = flow.build(
        graph,
        settings,
        folder,
        clock_mhz=clock,
        until=str(settings["until"]),
        seeds=int(settings["seeds"]),
        samples=codes,
        say=say,
    )
    say("Running the gateware in Verilator")
    simulated = simulate(made.program, codes, size=made.size)
    path = folder / f"{graph.digest[:12]}.{SUFFIX}"
    made.artifact.save(path)
    picture = folder / "schedule.svg"
    picture.write_text(report.svg(made.schedule), encoding="utf-8")
    return Implementation(
        path=path,
        gates=(rtl_gate(run(graph, codes), simulated.codes), *_gates(made, len(codes))),
        estimates=_estimates(made, simulated.cycles, made.artifact.clock_mhz),
        seconds=made.seconds,
        documents={picture.name: picture} | {file.name: file for file in made.files.values()},
        tools=made.tools,
        remarks=() if made.timing else ("It was built until RTL: there is no bitstream.",),
    )


def _gates(made: flow.Build, samples: int) -> tuple[GateResult, ...]:
    gates: list[GateResult] = []
    if made.netlist_mismatches is not None:
        said = "The synthesised netlist gives the integer model's bits"
        gates.append(equality_gate("netlist", made.netlist_mismatches, samples, said))
    if made.timing:
        best = max(timing.fmax_mhz for timing in made.timing)
        gates.append(timing_gate(best, made.requested_mhz, len(made.timing)))
    if made.used:
        gates.append(resources_gate(made.used, made.available))
    return tuple(gates)


def _estimates(made: flow.Build, cycles: int, clock: float) -> tuple[Estimate, ...]:
    """Cycles are counted in simulation; times follow from the clock, which nobody measured."""
    found = [
        Estimate(name="cycles", value=cycles, unit="cycles", source="Verilator"),
        Estimate(
            name="latency", value=cycles / clock / 1000, unit="ms", source="cycles at the clock"
        ),
    ]
    if made.timing:
        best = max(timing.fmax_mhz for timing in made.timing)
        found.append(Estimate(name="fmax", value=best, unit="MHz", source="nextpnr"))
    for name, count in made.used.items():
        found.append(Estimate(name=name, value=count, unit="", source="nextpnr"))
    return tuple(found)
