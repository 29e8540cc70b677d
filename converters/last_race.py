"""The last race: contenders beside float32 on each runtime, whose times decide and are recorded.

While a speed gate is undecided, or passes so narrowly that luck may have done it, all lanes race
again, for longer and in new processes.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict
from converters.arena import Arena, Lane, Timing
from converters.gates import speed_gate

NARROW = 1.1  # of the speed-up that is asked for: a pass below is confirmed by another race
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
        arena: where they run.
        contenders: float32 on the same runtime, by contender.
        lanes: all that run, the contenders and float32 among them.
        min_speedup: the ratio to float32 that is asked for.
        confidence: of the gates.
    """
    timings: dict[str, Timing] = {}
    gates: dict[str, GateResult] = {}
    for race in range(_RACES):
        timings = arena.time(lanes, seconds=(1 + race) * _SECONDS * len(lanes), anew=race > 0)
        before, gates = gates, {}
        for lane, baseline in contenders.items():
            gate = speed_gate(
                np.array(timings[baseline.key].milliseconds),
                np.array(timings[lane.key].milliseconds),
                min_speedup=min_speedup,
                confidence=confidence,
            )
            gates[lane.key] = confirmed(gate, before.get(lane.key))
        if all(gate.result is not Verdict.UNDECIDED for gate in gates.values()):
            break
    return timings, gates


def confirmed(gate: GateResult, before: GateResult | None) -> GateResult:
    """A narrow pass counts where the race before it, in other processes, passed as well.

    Args:
        gate: of the race that was just run.
        before: of the race before; None where there was none.

    An interval over the rounds of one race does not know what all of them share: how the
    processes were placed, and whatever else the machine did meanwhile.
    """
    narrow = (
        gate.result is Verdict.PASS
        and gate.low is not None
        and gate.bound is not None
        and gate.low < NARROW * gate.bound
    )
    if not narrow or (before is not None and (before.low or 0.0) >= (gate.bound or 0.0)):
        return gate
    return msgspec.structs.replace(
        gate,
        result=Verdict.UNDECIDED,
        reason=f"{gate.reason.rstrip('.')}: too narrowly for one race, and no other one agreed.",
    )
