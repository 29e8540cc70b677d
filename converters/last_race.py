"""The last race: contenders beside float32 on each runtime, whose times decide and are recorded.

The rounds of one race share what its processes share: where they were placed, and whatever else
the machine did meanwhile. An interval over rounds does not know of that, so only a clear pass
counts at once (a quick race in other processes has said the same before); all else wants a second
race, for longer and in new processes, that agrees.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict
from converters.arena import Arena, Lane, Timing
from converters.gates import speed_gate

CLEARLY = 1.1  # times the speed-up that is asked for
_SECONDS = 0.5  # a lane
_RACES = 3


def last_race(
    arena: Arena,
    contenders: Mapping[Lane, Lane],
    lanes: Sequence[Lane],
    *,
    min_speedup: float,
    confidence: float,
) -> tuple[dict[str, Timing], dict[str, GateResult]]:
    """Race lanes; timings of the last race, and each contender's speed gate, by lane key.

    Args:
        arena: where they run. Races that decide nothing are not kept in its cache.
        contenders: float32 on the same runtime, by contender.
        lanes: all that run, the contenders and float32 among them.
        min_speedup: the ratio to float32 that is asked for.
        confidence: of the gates.
    """
    timings: dict[str, Timing] = {}
    races: dict[str, list[GateResult]] = {lane.key: [] for lane in contenders}
    gates: dict[str, GateResult] = {}
    seconds = [(1 + race) * _SECONDS * len(lanes) for race in range(_RACES)]
    for race in range(_RACES):
        timings = arena.time(lanes, seconds=seconds[race], anew=race > 0)
        for lane, baseline in contenders.items():
            races[lane.key].append(
                speed_gate(
                    np.array(timings[baseline.key].milliseconds),
                    np.array(timings[lane.key].milliseconds),
                    min_speedup=min_speedup,
                    confidence=confidence,
                )
            )
        gates = {key: agreed(gates_) for key, gates_ in races.items()}
        if all(gate.result is not Verdict.UNDECIDED for gate in gates.values()):
            return timings, gates
    for race in range(_RACES):
        arena.forget(lanes, seconds=seconds[race], anew=race > 0)
    return timings, gates


def agreed(races: Sequence[GateResult]) -> GateResult:
    """What races of the same lanes say together.

    Args:
        races: the speed gate of each, in their order, at least one.

    Returns:
        The last one's gate where it passes clearly, or where the one before says the same: then
        with the interval that covers both. Undecided otherwise.
    """
    last = races[-1]
    if last.result is Verdict.UNDECIDED:
        return last
    if len(races) == 1:
        if last.result is Verdict.PASS and (last.low or 0.0) >= CLEARLY * (last.bound or 0.0):
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


def _undecided(gate: GateResult, why: str) -> GateResult:
    reason = f"{gate.reason.rstrip('.')}; {why}."
    return msgspec.structs.replace(gate, result=Verdict.UNDECIDED, reason=reason)
