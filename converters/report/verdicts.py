"""Gates in words."""

from collections.abc import Sequence

from cloud_sync.evidence import GateResult, Verdict
from converters.report import words

_TONES = {
    Verdict.PASS: ("good", "✓"),
    Verdict.FAIL: ("bad", "✗"),
    Verdict.UNDECIDED: ("warn", "?"),
}


def gate_named(gates: Sequence[GateResult], name: str) -> GateResult | None:
    """The gate of that name, if there is one."""
    return next((gate for gate in gates if gate.name == name), None)


def tone_of(verdict: Verdict) -> str:
    """The class of a verdict's colour."""
    return _TONES[verdict][0]


def gate_line(gate: GateResult) -> dict[str, str]:
    """What a table says of a gate."""
    tone, mark = _TONES[gate.result]
    needs = ""
    if gate.result is Verdict.UNDECIDED and not gate.n:
        needs = "not measured on such a machine"
    elif gate.result is Verdict.UNDECIDED:
        what = "rounds" if gate.name in {"speedup", "latency"} else "samples"
        needs = (
            f"{words.count(gate.n)} {what}, about {words.count(gate.n_needed)} would decide"
            if gate.n_needed
            else f"{words.count(gate.n)} {what}, no practicable number would decide"
        )
    return {
        "tone": tone,
        "mark": mark,
        "name": gate.name,
        "verdict": str(gate.result),
        "needs": needs,
        "reason": gate.reason,
    }


def speed_gain(gate: GateResult | None) -> str:
    """How much faster, with the interval: a clause."""
    if gate is None or gate.value is None:
        return "its speed beside float32 was not measured"
    interval = (
        f" ({gate.low:.2f} to {gate.high:.2f})"
        if gate.low is not None and gate.high is not None
        else ""
    )
    return f"{gate.value:.2f} x the speed of float32 on the same runtime{interval}"


def accuracy_cost(gate: GateResult | None, max_drop: float) -> str:
    """What it cost, with the interval: a sentence."""
    if gate is None or gate.value is None or gate.baseline is None:
        return "What it cost in accuracy was not measured."
    drop = gate.baseline - gate.value
    interval = ""
    if gate.low is not None and gate.high is not None:
        interval = (
            f" (a drop from {words.points(gate.baseline - gate.high)} to "
            f"{words.points(gate.baseline - gate.low)} at {100 * (gate.confidence or 0):g} % "
            "confidence)"
        )
    said = "costs" if drop >= 0 else "costs nothing but gains"
    return (
        f"It {said} {words.points(abs(drop))} points of {gate.unit}{interval}, where "
        f"{100 * max_drop:g} may be lost: {words.share(gate.value)} after "
        f"{words.share(gate.baseline)} on the same {words.count(gate.n)} samples."
    )
