"""Candidates: what may become a variant of a target, with its gates and what came of them."""

from collections.abc import Mapping, Sequence

import msgspec

from cloud_sync.evidence import GateResult, Verification
from converters.arena import Judged, Lane, Timing
from converters.contest import Contender
from converters.decide import Choice, choose, choose_float
from converters.emulated import Emulated
from converters.recipe import FLOAT, Recipe
from hardware.profiles import TargetProfile


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact on a runtime, for a target.

    `gates` are accuracy and speed-up; of the float model, what it loses on this runtime where
    it was judged on another first.
    """

    target: TargetProfile
    lane: Lane
    move: str
    choice: Choice
    gates: tuple[GateResult, ...]
    judged: Judged
    timing: Timing
    verification: Verification = Verification.ARTIFACT_EXECUTED

    @property
    def is_float(self) -> bool:
        """Whether it is the model as it came."""
        return self.lane.artifact.precision == FLOAT


def candidates_of(
    target: TargetProfile,
    contenders: Sequence[Contender],
    timings: Mapping[str, Timing],
    judged: Mapping[str, Judged],
    accept: str,
) -> list[Candidate]:
    """The contenders of a contest as candidates for one target.

    Args:
        target: what they are for.
        contenders: the lanes, with their gates.
        timings: of the last race, by lane.
        judged: what the metric made of each lane's answers.
        accept: the reason that was given for deploying on an undecided gate.
    """
    return [
        Candidate(
            target=target,
            lane=contender.lane,
            move=contender.move,
            choice=choose(contender.accuracy, contender.speed, accept=accept),
            gates=(contender.accuracy, contender.speed),
            judged=judged[contender.lane.key],
            timing=timings[contender.lane.key],
        )
        for contender in contenders
    ]


def float_candidates(
    target: TargetProfile,
    lanes: Sequence[Lane],
    timings: Mapping[str, Timing],
    judged: Mapping[str, Judged],
    conversions: Mapping[str, GateResult],
) -> list[Candidate]:
    """The float model on each runtime: an answer wherever the runtime computes what it should.

    Args:
        target: what they are for.
        lanes: the float model on each runtime.
        timings: of the last race, by lane.
        judged: what the metric made of each lane's answers.
        conversions: by runtime, the gate on what the float model loses there.
    """
    return [
        Candidate(
            target=target,
            lane=lane,
            move="float32",
            choice=choose_float(conversions.get(lane.runtime)),
            gates=tuple(filter(None, [conversions.get(lane.runtime)])),
            judged=judged[lane.key],
            timing=timings[lane.key],
        )
        for lane in lanes
    ]


def emulated_candidate(
    candidate: Candidate, found: Emulated, speed: GateResult | None, accept: str
) -> Candidate:
    """A candidate by what emulation of its target's processor showed.

    Args:
        candidate: as it was judged here.
        found: what it answered there.
        speed: the gate that takes the place of this machine's times, where they say nothing.
        accept: the reason that was given for deploying on an undecided gate.
    """
    timing = candidate.timing
    if speed is not None:
        timing = msgspec.structs.replace(timing, milliseconds=(), load_ms=0.0, memory_bytes=0)
    if candidate.is_float:
        gates = candidate.gates
        if found.accuracy is not None:
            gates = (msgspec.structs.replace(found.accuracy, name="conversion"),)
        choice = choose_float(gates[0] if gates else None)
    else:
        accuracy, here = candidate.gates
        gates = (found.gate(accuracy), speed or here)
        choice = choose(*gates, accept=accept)
    return msgspec.structs.replace(candidate, gates=gates, choice=choice, timing=timing)


def as_decided(candidates: Sequence[Candidate], recipe: Recipe) -> list[Candidate]:
    """The candidates that a recipe decided on, whatever their gates say this time."""
    decided = {(v.target, v.runtime, v.precision): v for v in recipe.variants}
    kept = []
    for candidate in candidates:
        key = (candidate.target.name, candidate.lane.runtime, candidate.lane.artifact.precision)
        if key in decided:
            choice = Choice(
                deployable=True, accepted=decided[key].accepted, reason="as the recipe says"
            )
            kept.append(msgspec.structs.replace(candidate, choice=choice))
    return kept
