"""What is said where nothing passes a target's gates: no variant, but what came nearest."""

from collections.abc import Sequence

from cloud_sync.evidence import GateResult, Verdict
from converters.candidates import Candidate
from converters.result import LeftOut
from edgeml.errors import GateFailed

_LIMITS = {"size": "--max-size", "memory": "--max-memory", "start": "--max-start"} | {
    "latency": "--max-latency"
}


def refused(candidates: Sequence[Candidate], left_out: Sequence[LeftOut]) -> dict[str, GateFailed]:
    """Targets that have no variant, not even a float one, and what came nearest.

    Args:
        candidates: all that were decided on.
        left_out: why those that are no variants are none.

    Returns:
        by target an error, an undecided one where only doubt kept the nearest out.
    """
    served = {c.target.name for c in candidates if c.choice.deployable}
    lacking = [n for n in dict.fromkeys(c.target.name for c in candidates) if n not in served]
    return {
        name: _refusal(name, _nearest([c for c in candidates if c.target.name == name]), left_out)
        for name in lacking
    }


def _refusal(name: str, nearest: Candidate, left_out: Sequence[LeftOut]) -> GateFailed:
    undecided = nearest.choice.undecided
    return GateFailed(
        f"No variant for {name} passes its gates, not even float32.",
        why=_told(nearest, left_out),
        fix=nearest.choice.remedy if undecided else _fix([nearest]),
        undecided=undecided,
    )


def _nearest(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate that fails in least, and by least."""

    def distance(candidate: Candidate) -> tuple[int, float]:
        failed = [gate for gate in candidate.gates if gate.result is Verdict.FAIL]
        return len(failed), max((_times_over(gate) for gate in failed), default=0.0)

    return min(candidates, key=distance)


def _times_over(gate: GateResult) -> float:
    if gate.name not in _LIMITS or gate.value is None or not gate.bound:
        return float("inf")
    return gate.value / gate.bound


def _told(candidate: Candidate, left_out: Sequence[LeftOut]) -> str:
    lane = candidate.lane
    said = (
        f"The nearest for {candidate.target.name} is {lane.artifact.precision} on "
        f"{lane.runtime}: "
        + " ".join(g.reason for g in candidate.gates if g.result is not Verdict.PASS)
    )
    raced = [c for c in left_out if c.target == candidate.target.name and not c.runtime]
    return " ".join([said, *(f"Of int8, {c.reason}" for c in raced)])


def _fix(nearest: Sequence[Candidate]) -> str:
    failed = {g.name for c in nearest for g in c.gates if g.result is Verdict.FAIL}
    bounds = [option for name, option in _LIMITS.items() if name in failed]
    ways = [f"Raise {' and '.join(bounds)}"] if bounds else []
    ways += ["name another --runtime"] if "conversion" in failed else []
    ways += ["lower --min-speedup, where a smaller variant is worth more than a faster one"]
    ways += ["start from a smaller model"]
    said = ", or ".join(ways)
    return f"{said[0].upper()}{said[1:]}."
