"""Which of many gates says most of where a rollout or a device stands. Pure."""

from collections.abc import Iterable

from cloud_sync.evidence import GateResult, Verdict

_ORDER = (Verdict.FAIL, Verdict.UNDECIDED, Verdict.PASS)


def telling(gates: Iterable[GateResult]) -> GateResult | None:
    """What failed, else what is undecided, else what passes most narrowly.

    Of several, one with an interval is before one without. None where none has a value and a
    bound.
    """
    found = [gate for gate in gates if gate.value is not None and gate.bound is not None]
    return min(found, key=_rank) if found else None


def _rank(gate: GateResult) -> tuple[int, bool, float]:
    value, bound = gate.value or 0.0, gate.bound or 0.0
    distance = abs(value - bound) / (abs(bound) or 1.0)
    return _ORDER.index(gate.result), gate.low is None, distance
