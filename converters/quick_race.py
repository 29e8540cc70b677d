"""The quick race: whether a file is worth judging, told as soon as few rounds can tell it.

It measures nothing that is evidence; it only keeps the search from judging what is too slow. So it
errs on the side of the candidate: noise of `1 - MARGIN` is forgiven, and what would be left out is
raced once more in new processes, because whatever else this machine does may slow a process down
for longer than a race lasts.
"""

import msgspec
import numpy as np

from converters.arena import Arena
from converters.lanes import Lane, Race

MARGIN = 0.95  # of the speed-up that is asked for: the better of two quick races errs less
_HOPELESS = 0.5  # of the same: slower than another race would mend
_SECONDS = 0.6


class Quick(msgspec.Struct, frozen=True, order=True):
    """How many times faster than float32 on the same runtime, and the milliseconds it takes."""

    speedup: float
    milliseconds: float


def is_fast(speedup: float, min_speedup: float) -> bool:
    """Whether a quick race leaves it open that a lane is as fast as asked."""
    return speedup >= min_speedup * MARGIN


def quick_race(arena: Arena, baseline: Lane, lane: Lane, *, min_speedup: float) -> Quick:
    """Race a lane against float32 on its runtime; of two races the better counts.

    Args:
        arena: where they run.
        baseline: float32 on the lane's runtime.
        lane: the candidate.
        min_speedup: the ratio that is asked for.

    Raises:
        ModelError: the runtime cannot run one of them.
    """
    best = Quick(0.0, float("inf"))
    for anew in (False, True):
        bound = min_speedup * MARGIN
        times = arena.time(Race(lanes=[baseline, lane], seconds=_SECONDS, bound=bound, anew=anew))
        ratios = np.divide(times[baseline.key].milliseconds, times[lane.key].milliseconds)
        best = max(best, Quick(float(np.median(ratios)), times[lane.key].p50_ms))
        if is_fast(best.speedup, min_speedup) or best.speedup < min_speedup * _HOPELESS:
            break
    return best
