"""The last race: contenders beside float32 on each runtime, whose times decide and are recorded.

The rounds of one race share what its processes share: where they were placed, and whatever else
the machine did meanwhile. An interval over rounds does not know of that, so only what is clear,
and what a quick race in other processes has said before, counts at once. All else wants another
race that agrees; only those who need it run in it, beside their float32. Each race has new
processes: what a quick race has shown was in others.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict
from converters.arena import Arena
from converters.gates import speed_gate
from converters.lanes import Lane, Race, Timing

CLEARLY = 1.1  # times the speed-up that is asked for, or its inverse
_SECONDS = (0.25, 0.5, 0.5)  # a lane of each race; slow models take longer, clear races end before


class Entry(msgspec.Struct, frozen=True):
    """Whom a contender races, float32 on its runtime, and how much faster a quick race saw it."""

    baseline: Lane
    quick: float | None = None


def last_race(
    arena: Arena,
    contenders: Mapping[Lane, Entry],
    lanes: Sequence[Lane],
    *,
    min_speedup: float,
    confidence: float,
) -> tuple[dict[str, Timing], dict[str, GateResult]]:
    """Race lanes; each lane's timings in all its races, and each contender's speed gate, by key.

    Args:
        arena: where they run. Races that decide nothing are not kept in its cache.
        contenders: whom each contender races.
        lanes: all that run, the contenders and float32 among them.
        min_speedup: the ratio to float32 that is asked for.
        confidence: of the gates.
    """
    timings: dict[str, Timing] = {}
    races: dict[str, list[GateResult]] = {lane.key: [] for lane in contenders}
    gates: dict[str, GateResult] = {}
    run: list[Race] = []
    for seconds in _SECONDS:
        doubted = {c: e.baseline for c, e in contenders.items() if _in_doubt(gates.get(c.key))}
        if run and not doubted:
            return timings, gates
        racing = [lane for lane in lanes if not run or lane in {*doubted, *doubted.values()}]
        race = Race(
            lanes=racing,
            seconds=seconds * len(racing),
            bound=min_speedup,
            against=doubted,
            anew=True,
        )
        run.append(race)
        timed = arena.time(race)
        timings |= {key: _joined(timings.get(key), timing) for key, timing in timed.items()}
        for lane, baseline in doubted.items():
            races[lane.key].append(
                speed_gate(
                    np.array(timed[baseline.key].milliseconds),
                    np.array(timed[lane.key].milliseconds),
                    min_speedup=min_speedup,
                    confidence=confidence,
                )
            )
            gates[lane.key] = agreed(races[lane.key], quick=contenders[lane].quick)
    if any(_in_doubt(gate) for gate in gates.values()):
        for race in run:
            arena.forget(race)
    return timings, gates


def agreed(races: Sequence[GateResult], *, quick: float | None = None) -> GateResult:
    """What races of the same lanes say together.

    Args:
        races: the speed gate of each, in their order, at least one.
        quick: the speed-up that a quick race has shown before; None where there was none.

    Returns:
        The last one's gate where it is clear and the quick race does not say otherwise, or where
        the one before says the same: then with the interval that covers both. Undecided otherwise.
    """
    last = races[-1]
    if last.result is Verdict.UNDECIDED:
        return last
    if len(races) == 1:
        if _is_clear(last, quick):
            return last
        return _undecided(last, "one race alone does not show it")
    before = races[-2]
    if before.result is not last.result:
        return _undecided(last, "the race before, in other processes, said otherwise")
    return msgspec.structs.replace(
        last,
        low=min(before.low or 0.0, last.low or 0.0),
        high=None if None in {before.high, last.high} else max(before.high or 0, last.high or 0),
        n=(before.n or 0) + (last.n or 0),
    )


def _is_clear(gate: GateResult, quick: float | None) -> bool:
    """Whether a gate's interval is far from its bound, on the side where the quick race was."""
    bound = gate.bound or 0.0
    if gate.result is Verdict.PASS:
        return (gate.low or 0.0) >= CLEARLY * bound and (quick is None or quick >= bound)
    is_slow = gate.high is not None and CLEARLY * gate.high <= bound
    return is_slow and quick is not None and quick < bound


def _in_doubt(gate: GateResult | None) -> bool:
    return gate is None or gate.result is Verdict.UNDECIDED


def _joined(before: Timing | None, timing: Timing) -> Timing:
    """What a lane took in several races, each in a process of its own."""
    if before is None:
        return timing
    return msgspec.structs.replace(
        timing,
        milliseconds=before.milliseconds + timing.milliseconds,
        loads_ms=before.loads_ms + timing.loads_ms,
        peaks_bytes=before.peaks_bytes + timing.peaks_bytes,
    )


def _undecided(gate: GateResult, why: str) -> GateResult:
    reason = f"{gate.reason.rstrip('.')}; {why}."
    return msgspec.structs.replace(gate, result=Verdict.UNDECIDED, reason=reason)
