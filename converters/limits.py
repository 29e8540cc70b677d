"""Gates on what a variant takes of a device: size, memory, start-up, time of an inference.

Pure functions from what was measured to a `GateResult`. The bounds are those of the target's
profile and of the request, the tighter of both. They hold for float32 as for int8. What was
not measured on the target's own architecture is undecided, never taken from an emulator.
"""

import math
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict
from converters.gates import median_bounds
from converters.report.words import number, size
from hardware.profiles import Limits


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What an artifact takes: the file's size, and as measured on one runtime, if it was.

    `memory_bytes` and `start_ms` are medians over `processes`; they are 0 and `milliseconds`, one
    a round, empty where nothing was measured.
    """

    model_bytes: int
    memory_bytes: int = 0
    start_ms: float = 0.0
    processes: int = 1
    milliseconds: tuple[float, ...] = ()


def limit_gates(
    limits: Limits, taken: Taken, baseline: Taken | None, *, confidence: float
) -> Iterator[GateResult]:
    """A gate for each limit that is set: `size`, `memory`, `start` and `latency`.

    Args:
        limits: the bounds.
        taken: of the candidate.
        baseline: of float32 on the same runtime, to stand beside it; None where that is it.
        confidence: of the statement on the median latency.
    """
    beside = baseline or Taken(model_bytes=0)
    for name, value, before, bound, unit in (
        ("size", taken.model_bytes, beside.model_bytes, limits.max_model_bytes, "bytes"),
        ("memory", taken.memory_bytes, beside.memory_bytes, limits.max_memory_bytes, "bytes"),
        ("start", taken.start_ms, beside.start_ms, limits.max_start_ms, "ms"),
    ):
        if bound is not None:
            n = 1 if name == "size" else taken.processes
            yield limit_gate(name, value or None, bound, unit, baseline=before or None, n=n)
    if limits.max_latency_ms is not None:
        yield latency_gate(
            taken.milliseconds,
            limits.max_latency_ms,
            baseline=float(np.median(beside.milliseconds)) if beside.milliseconds else None,
            confidence=confidence,
        )


def limit_gate(
    name: str,
    value: float | None,
    bound: float,
    unit: str,
    *,
    baseline: float | None = None,
    n: int = 1,
) -> GateResult:
    """Judge one number that must not exceed a bound.

    Args:
        name: the gate's name (`size`, `memory`, `start`).
        value: what was measured, the median; None where it could not be.
        bound: the most that is allowed, itself included.
        unit: of all (`bytes`, `ms`).
        baseline: the float model's.
        n: how often it was measured.
    """
    allowed = f"at most {_said(bound, unit)} are allowed"
    if value is None or not math.isfinite(value):
        return GateResult(
            name=name,
            result=Verdict.UNDECIDED,
            baseline=baseline,
            bound=bound,
            unit=unit,
            reason=f"{_NOT_MEASURED[name]}; {allowed}.",
        )
    within = value <= bound
    joined = " where" if within else ", but"
    return GateResult(
        name=name,
        result=Verdict.PASS if within else Verdict.FAIL,
        value=value,
        baseline=baseline,
        bound=bound,
        n=n,
        unit=unit,
        reason=f"{_TAKES[name].format(_said(value, unit))}{joined} {allowed}.",
    )


def latency_gate(
    milliseconds: Sequence[float], bound: float, *, baseline: float | None, confidence: float
) -> GateResult:
    """Judge the median time of an inference.

    Args:
        milliseconds: one timing a round; empty where none was taken.
        bound: the most that is allowed.
        baseline: the float model's median.
        confidence: of the statement that the median is within (pass) or above (fail).
    """
    allowed = f"at most {_said(bound, 'ms')} are allowed"
    if not milliseconds:
        return GateResult(
            name="latency",
            result=Verdict.UNDECIDED,
            baseline=baseline,
            bound=bound,
            unit="ms",
            reason=f"{_NOT_MEASURED['latency']}; {allowed}.",
        )
    median = median_bounds(np.asarray(milliseconds, float), confidence)
    result = Verdict.UNDECIDED
    if median.high <= bound:
        result = Verdict.PASS
    elif median.low > bound:
        result = Verdict.FAIL
    return GateResult(
        name="latency",
        result=result,
        value=median.value,
        baseline=baseline,
        bound=bound,
        low=median.low,
        high=median.high if np.isfinite(median.high) else None,
        confidence=confidence,
        n=len(milliseconds),
        n_needed=median.n_needed(bound) if result is Verdict.UNDECIDED else None,
        unit="ms",
        reason=f"An inference takes {_said(median.value, 'ms')} ({number(median.low)} to "
        f"{number(median.high)} over {len(milliseconds)} rounds), where {allowed}"
        f"{': too near to tell' if result is Verdict.UNDECIDED else ''}.",
    )


_TAKES = {
    "size": "Its file has {}",
    "memory": "It takes {} of memory",
    "start": "It starts in {}",
}
_NOT_MEASURED = {
    "size": "Its size is not known",
    "memory": "Its memory was not measured on this architecture",
    "start": "Its start was not timed on this architecture",
    "latency": "It was not timed on this architecture",
}


def _said(value: float, unit: str) -> str:
    return size(round(value)) if unit == "bytes" else f"{number(value)} ms"
