"""An integer graph made into gateware, and the gates that say whether it is what was asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cloud_sync.evidence import Estimate, GateResult, Verdict, Verification
from converters.fpga.integer.graph import IntegerGraph
from converters.fpga.synthesis import Forgetful, Keeper

VERSION = "1"  # of the arithmetic that graphs, references and gateware share

Settings = Mapping[str, str | int | float | bool]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Implementation:
    """What a device is given (`path`), what was proven of it, and what its tools said."""

    path: Path
    gates: tuple[GateResult, ...]
    estimates: tuple[Estimate, ...]
    seconds: float
    documents: dict[str, Path] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    runtime: str = "fpga"
    verification: Verification = Verification.RTL_SIMULATED
    executed_on: str = "integer reference, equal to the gateware in Verilator"


def build(
    graph: IntegerGraph,
    settings: Settings,
    folder: Path,
    codes: np.ndarray,
    say: Say,
    *,
    keeper: Keeper | None = None,
) -> Implementation:
    """Make gateware of a graph, as far as `until`, and run it in Verilator on some codes.

    Args:
        graph: what it computes.
        settings: of the target and the request.
        folder: for files.
        codes: of the input, int64[samples, height, width, channels], that it is proven on.
        say: told what is being done.
        keeper: of finished steps of synthesis; nothing is kept without.

    Raises:
        TargetError: it does not fit; the error has the estimate.
        ToolchainError: a tool is missing or failed.
    """
    if settings["architecture"] == "dataflow":
        from converters.fpga import dataflow

        return dataflow.build(graph, settings, folder, codes, say, keeper=keeper or Forgetful())
    if settings["architecture"] == "hls4ml":
        from converters.fpga import vitis

        return vitis.build(graph, settings, folder, codes, say)
    from converters.fpga import engine

    return engine.build(graph, settings, folder, codes, say, keeper=keeper or Forgetful())


def rtl_gate(wanted: np.ndarray, given: np.ndarray) -> GateResult:
    """Whether the gateware's Verilog gave the integer model's bits on every sample."""
    wrong = int((wanted != given).reshape(len(wanted), -1).any(axis=1).sum())
    said = "as the integer model has them, bit for bit" if not wrong else "not the integer model's"
    return equality_gate("rtl", wrong, len(wanted), f"Verilator's outputs are {said}")


def equality_gate(name: str, wrong: int, samples: int, said: str) -> GateResult:
    """A gate on samples whose bits differ: none may."""
    return GateResult(
        name=name,
        result=Verdict.FAIL if wrong else Verdict.PASS,
        value=float(wrong),
        bound=0.0,
        n=samples,
        unit="mismatches",
        reason=f"{said}: {samples - wrong} of {samples} samples.",
    )


def timing_gate(reached: float, requested: float, seeds: int) -> GateResult:
    """Whether place and route reached the clock that was asked for."""
    return GateResult(
        name="timing",
        result=Verdict.PASS if reached >= requested else Verdict.FAIL,
        value=reached,
        bound=requested,
        n=seeds,
        unit="MHz",
        reason=f"Place and route reached {reached:.1f} MHz, {requested:g} MHz were asked for "
        f"({seeds} seed{'s' * (seeds != 1)}).",
    )


def resources_gate(used: Mapping[str, int], available: Mapping[str, int]) -> GateResult:
    """Whether the part has all that the gateware takes."""
    shares = {name: used[name] / available[name] for name in used if available.get(name)}
    lacking = [name for name in used if used[name] > available.get(name, 0)]
    fullest = max(shares.values(), default=0.0)
    told = ", ".join(f"{used[name]:,} of {available.get(name, 0):,} {name}" for name in used)
    return GateResult(
        name="resources",
        result=Verdict.FAIL if lacking else Verdict.PASS,
        value=fullest,
        bound=1.0,
        n=1,
        unit="share",
        reason=f"It takes {told}.",
    )
