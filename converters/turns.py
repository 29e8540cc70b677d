"""Timing side by side: sessions run in turns, so that what else the machine does falls on all.

The one that starts a round changes from round to round. A race may end early, where more
rounds could not change what it is for.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from converters.executor import RemoteSession

_TURN_MS = 2.0  # a lane's turn lasts about this long, so that short inferences warm up
_MOST_IN_TURN = 32
FIRST_LOOK = 20  # rounds; the next looks follow at twice as many
_LOOKS = 1000  # of a race that neither side wins, one is wrong

Times = Mapping[str, Sequence[float]]


def take_turns(
    sessions: Mapping[str, RemoteSession],
    feeds: int,
    *,
    seconds: float,
    least_rounds: int,
    most_rounds: int = 2000,
    most_seconds: float | None = None,
    first_look: int = FIRST_LOOK,
    settled: Callable[[Times], bool] = lambda _: False,
    on_round: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time sessions in turns; returns milliseconds by name, one a round.

    A turn runs the same input until about two milliseconds are over and counts its median.
    Ends after `seconds`, though not before `least_rounds` (which slow models may cut short at
    `most_seconds`, by default four times `seconds`, never below 12) nor after `most_rounds`;
    earlier where `settled`, asked after `first_look` rounds, twice as many, four times ..., says
    that the times so far tell enough.
    """
    names = list(sessions)
    runs = {}
    for name, session in sessions.items():
        warm = session.time(0, 3)
        runs[name] = max(1, min(_MOST_IN_TURN, round(_TURN_MS / max(min(warm), 1e-3))))
    times: dict[str, list[float]] = {name: [] for name in names}
    patience = 4 * seconds if most_seconds is None else most_seconds
    begun, look = clock(), first_look
    for rounds in range(most_rounds):
        spent = clock() - begun
        enough = spent >= seconds and rounds >= least_rounds
        too_slow = spent >= patience and rounds >= 12  # noqa: PLR2004
        if enough or too_slow:
            break
        if rounds == look:
            if settled(times):
                break
            look *= 2
        on_round(rounds)
        turn = rounds % len(names)
        for name in names[turn:] + names[:turn]:
            taken = sessions[name].time(rounds % feeds, runs[name])
            times[name].append(float(np.median(taken)))
    return times


def on_one_side(ratios: Sequence[float], bound: float) -> bool:
    """Whether the median of paired ratios is shown to lie above, or below, a bound.

    A sign test, which assumes nothing about how times are distributed: were the median at the
    bound, so few of the ratios would lie on one side of it less than once in a thousand looks.
    Rounds that follow one another are not quite independent, so this may end a race whose
    ratio another race measures again, and proves nothing by itself.
    """
    above = sum(ratio > bound for ratio in ratios)
    below = sum(ratio < bound for ratio in ratios)
    counted = above + below
    likely = 2 * sum(math.comb(counted, k) for k in range(min(above, below) + 1))
    return likely * _LOOKS < 1 << counted
