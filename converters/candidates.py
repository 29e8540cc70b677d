"""Candidates: what may become a variant of a target, with its gates and what came of them."""

from collections.abc import Mapping, Sequence

import msgspec

from cloud_sync.evidence import GateResult, Verification
from converters.arena import Judged, Lane, Timing
from converters.contest import Contest
from converters.decide import Choice, choose, choose_float
from converters.recipe import FLOAT, Recipe
from hardware.profiles import TargetProfile


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact on a runtime, for a target; `gates` is empty for the float model."""

    target: TargetProfile
    lane: Lane
    move: str
    choice: Choice
    gates: tuple[GateResult, ...]
    judged: Judged
    timing: Timing
    verification: Verification


def candidates_of(
    target: TargetProfile,
    contest: Contest,
    *,
    verification: Verification,
    decided: Recipe | None,
    accept: str,
    judged: Mapping[str, Judged],
) -> list[Candidate]:
    """The contenders of a contest as candidates for one target.

    Args:
        target: what they are for.
        contest: where they won.
        verification: how far they were checked for that target.
        decided: the recipe that is replayed, whose decisions stand.
        accept: the reason that was given for deploying on an undecided accuracy gate.
        judged: what the metric made of each lane's answers.
    """
    return [
        Candidate(
            target=target,
            lane=contender.lane,
            move=contender.move,
            choice=(
                choose(contender.accuracy, contender.speed, accept=accept)
                if decided is None
                else _as_decided(decided, target, contender.lane)
            ),
            gates=(contender.accuracy, contender.speed),
            judged=judged[contender.lane.key],
            timing=contest.timings[contender.lane.key],
            verification=verification,
        )
        for contender in contest.contenders
    ]


def float_candidates(
    target: TargetProfile,
    contest: Contest,
    lanes: Sequence[Lane],
    *,
    verification: Verification,
    judged: Mapping[str, Judged],
    conversions: Mapping[str, GateResult],
) -> list[Candidate]:
    """The float model on each runtime: an answer wherever the runtime computes what it should.

    Args:
        target: what they are for.
        contest: where they were timed.
        lanes: the float model on each runtime.
        verification: how far they were checked for that target.
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
            timing=contest.timings[lane.key],
            verification=verification,
        )
        for lane in lanes
    ]


def _as_decided(recipe: Recipe, target: TargetProfile, lane: Lane) -> Choice:
    accepted = next(
        (
            variant.accepted
            for variant in recipe.variants
            if variant.target == target.name
            and variant.runtime == lane.runtime
            and variant.precision != FLOAT
        ),
        "",
    )
    return Choice(deployable=True, accepted=accepted, reason="as the recipe says")
