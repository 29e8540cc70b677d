"""Why there is no quantized variant: of each candidate that is none, and of targets without any."""

from collections.abc import Collection, Mapping, Sequence

from converters.candidates import Candidate
from converters.contest import Attempt, Contest
from converters.plan import flavours_of
from converters.result import LeftOut
from hardware.profiles import TargetProfile


def left_out_of(
    candidates: Sequence[Candidate],
    contests: Mapping[tuple[str, ...], Contest],
    foreign: Collection[str] = (),
    *,
    is_replayed: bool = False,
) -> list[LeftOut]:
    """Candidates that are no variants, and targets for which there was none.

    Args:
        candidates: all that were decided on.
        contests: by the flavours that were searched.
        foreign: targets that cannot be executed here, but under emulation, if at all.
        is_replayed: whether a recipe decided, so that nothing was searched.
    """
    left_out = [
        LeftOut(
            target=candidate.target.name,
            runtime=candidate.lane.runtime,
            precision=candidate.lane.artifact.precision,
            reason=candidate.choice.reason,
            undecided=candidate.choice.undecided,
            remedy=candidate.choice.remedy,
            gates=candidate.gates,
        )
        for candidate in candidates
        if not candidate.choice.deployable
    ]
    raced = [candidate for candidate in candidates if candidate.compiled is None]
    for target in {c.target.name: c.target for c in raced}.values():
        mine = [candidate for candidate in candidates if candidate.target.name == target.name]
        if not all(candidate.is_float for candidate in mine):
            continue
        if is_replayed:
            said = "the recipe says so."
            left_out.append(LeftOut(target=target.name, precision="int8", reason=said))
        else:
            runtimes = {candidate.lane.runtime for candidate in mine}
            attempts = contests[flavours_of(target)].attempts
            left_out.append(_without_any(target, attempts, runtimes, target.name in foreign))
    return left_out


def _without_any(
    target: TargetProfile, attempts: Sequence[Attempt], runtimes: set[str], is_foreign: bool
) -> LeftOut:
    """Why no quantized file was judged for a target.

    Speed on this machine has sorted them out, which says nothing of a processor that is not here.
    """
    missing = next((attempt.missing_tool for attempt in attempts if attempt.missing_tool), "")
    said = missing or nothing_raced(attempts, runtimes)
    is_doubt = is_foreign and any(runtimes & attempt.speedups.keys() for attempt in attempts)
    if is_doubt:
        said = f"on this machine {said.rstrip('.')}, and no such processor is here to tell."
    return LeftOut(
        target=target.name,
        precision="int8",
        reason=said,
        undecided=is_doubt,
        remedy="Convert on such a machine." if is_doubt else "",
        needs_tool=bool(missing),
    )


def nothing_raced(attempts: Sequence[Attempt], runtimes: Collection[str]) -> str:
    """Why no quantization was judged on any of these runtimes: the sentence for people."""
    speeds = {
        attempt.move: max(mine)
        for attempt in attempts
        if (mine := [speed for name, speed in attempt.speedups.items() if name in runtimes])
    }
    if not speeds:
        return f"the model cannot be quantized: {_refused_by(attempts) or 'it has no weights'}."
    best = max(speeds, key=lambda move: speeds[move])
    return (
        f"quantization is not shown to be faster: the best of {len(speeds)} files, {best}, "
        f"runs at {speeds[best]:.2f} x the speed of float32."
    )


def _refused_by(attempts: Sequence[Attempt]) -> str:
    """Why the first quantization was refused, and how many more were."""
    if not attempts:
        return ""
    first, more = attempts[0], len(attempts) - 1
    reason = first.outcome.replace(". ", ", ")
    others = "1 other way was" if more == 1 else f"{more} other ways were"
    return f"{first.move}: {reason}" + (f", and {others} refused too" if more else "")
