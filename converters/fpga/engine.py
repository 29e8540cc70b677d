"""The architecture `engine`: one MAC array, one layer after the other, any net that fits."""

import time
from pathlib import Path

import msgspec
import numpy as np

from cloud_sync.evidence import Estimate, Verdict
from converters.fpga import design, estimate, flow, report
from converters.fpga.built import Implementation, Say, Settings, rtl_gate
from converters.fpga.integer.graph import IntegerGraph
from converters.fpga.integer.reference import run
from converters.fpga.schedule import schedule
from converters.fpga.simulate import simulate, version
from converters.fpga.synthesis import Keeper
from hardware.fpga.artifact import Artifact
from hardware.fpga.program import Program

SUFFIX = "fpga"


def build(
    graph: IntegerGraph,
    settings: Settings,
    folder: Path,
    codes: np.ndarray,
    say: Say,
    *,
    keeper: Keeper,
) -> Implementation:
    """Build an engine for a graph and run its Verilog; see `converters.fpga.built.build`."""
    begun = time.monotonic()
    fit = flow.fits(graph, settings)
    program, size = fit.program, fit.size
    place = "-flash" if program.far else ""
    folder = folder / f"engine-{graph.digest[:12]}-{program.lanes}{place}"
    folder.mkdir(exist_ok=True)
    scheduled = schedule(graph, program.lanes, banks=program.banks)
    budget = flow.budget_of(settings)
    large = estimate.large(size, budget.family, budget.spram)
    engine = design.engine(program, size, large)
    say("Running the gateware in Verilator")
    simulated = simulate(program, codes, size=size)
    wanted = run(graph, codes)
    gate = rtl_gate(wanted, simulated.codes)
    until = settings["until"] if gate.result is Verdict.PASS else "rtl"
    made = flow.realise(
        engine,
        {**settings, "until": until},
        folder,
        (codes, wanted),
        cycles=simulated.cycles,
        keeper=keeper,
        say=say,
    )
    path = folder / f"{graph.digest[:12]}.{SUFFIX}"
    artifact = Artifact(
        program=program,
        size=size,
        build=engine.build,
        host=flow.host_side(graph),
        **made.fields,  # type: ignore[arg-type]
    )
    artifact.save(path)
    files = {**made.files, **_images(program, folder)}
    if program.far:
        files["flash.bin"] = folder / "flash.bin"
        files["flash.bin"].write_bytes(program.far)
    known = {**size.parameters_of_verilog, **report.of_program(program)}
    constants = report.constants(known, engine.build, made)
    files["edgeml_engine.h"] = _written(folder / "edgeml_engine.h", constants)
    files["schedule.svg"] = _written(folder / "schedule.svg", report.svg(scheduled))
    return Implementation(
        path=path,
        gates=(gate, *made.gates),
        estimates=(*latency(simulated.cycles, made.clock_mhz), *(made.estimates or _needed(fit))),
        seconds=time.monotonic() - begun,
        documents=files,
        tools={"verilator": version(), **made.tools},
        remarks=made.remarks,
    )


def latency(cycles: int, clock_mhz: float) -> tuple[Estimate, Estimate]:
    """Cycles are counted in simulation; the time follows from the clock, which nobody measured."""
    time_ms = cycles / clock_mhz / 1000
    return (
        Estimate(name="cycles", value=cycles, unit="cycles", source="Verilator"),
        Estimate(name="latency", value=time_ms, unit="ms", source="cycles at the clock"),
    )


def _needed(fit: flow.Fit) -> tuple[Estimate, ...]:
    """What the engine will take, before it is synthesised."""
    needs = msgspec.structs.asdict(fit.need)
    return flow.counted(needs, "a formula of the engine's size")


def _written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def _images(program: Program, folder: Path) -> dict[str, Path]:
    """The memories' content as 32-bit words in hexadecimal, as the bus has them."""
    return {
        f"{name}.hex": _written(folder / f"{name}.hex", "".join(f"{word:08x}\n" for word in words))
        for name, words in program.images().items()
    }
