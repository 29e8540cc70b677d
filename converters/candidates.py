"""Candidates: what may become a variant of a target, with its gates and what came of them."""

from collections.abc import Mapping, Sequence

import msgspec

from cloud_sync.evidence import GateResult, Verification
from converters.backends.interface import Offer
from converters.contest import Contender
from converters.decide import NOT_YET, Choice, choose
from converters.emulated import Emulated
from converters.evaluation import Judged
from converters.lanes import Lane, Timing
from converters.limits import Taken, limit_gates
from converters.recipe import FLOAT, Inputs, Recipe, VariantRecipe
from converters.toolchains.saturation import SaturationEvidence
from converters.tools import tool_versions, toolchain_versions
from edgeml.errors import GateFailed
from hardware.profiles import Limits, TargetProfile
from hardware.runtimes.formats import TFLITE


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact on a runtime, for a target.

    `gates` are accuracy and speed-up; `conversion`, on what the float model itself loses on
    this runtime, where that is not the reference; and those on the target's limits.
    `saturation` is computed where the target's processor may saturate and nothing executes it,
    `compiled` is what a backend offered, where one serves the target.
    """

    target: TargetProfile
    lane: Lane
    move: str
    gates: tuple[GateResult, ...]
    judged: Judged
    timing: Timing
    choice: Choice = NOT_YET
    verification: Verification = Verification.ARTIFACT_EXECUTED
    saturation: SaturationEvidence | None = None
    compiled: Offer | None = None

    @property
    def is_float(self) -> bool:
        """Whether it is the model as it came."""
        return self.lane.artifact.precision == FLOAT


def candidates_of(
    target: TargetProfile,
    contenders: Sequence[Contender],
    timings: Mapping[str, Timing],
    judged: Mapping[str, Judged],
    conversions: Mapping[str, GateResult],
) -> list[Candidate]:
    """The contenders of a contest as candidates for one target.

    Args:
        target: what they are for.
        contenders: the lanes, with their gates.
        timings: of the last race, by lane.
        judged: what the metric made of each lane's answers.
        conversions: by runtime, the gate on what the float model loses there, which a file
            that loses nothing more has lost as well.
    """
    return [
        Candidate(
            target=target,
            lane=contender.lane,
            move=contender.move,
            gates=(
                contender.accuracy,
                contender.speed,
                *filter(None, [conversions.get(contender.lane.runtime)]),
            ),
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
            gates=tuple(filter(None, [conversions.get(lane.runtime)])),
            judged=judged[lane.key],
            timing=timings[lane.key],
        )
        for lane in lanes
    ]


def emulated_candidate(
    candidate: Candidate, found: Emulated, speed: GateResult | None
) -> Candidate:
    """A candidate by what emulation of its target's processor showed.

    Args:
        candidate: as it was judged here.
        found: what it answered there.
        speed: the gate that takes the place of this machine's times, where they say nothing.
    """
    timing = candidate.timing
    if speed is not None:
        timing = msgspec.structs.replace(timing, milliseconds=(), loads_ms=(), peaks_bytes=())
    if candidate.is_float:
        gates = candidate.gates
        if found.accuracy is not None:
            gates = (msgspec.structs.replace(found.accuracy, name="conversion"),)
    else:
        accuracy, here, *others = candidate.gates
        gates = (found.gate(accuracy), speed or here, *others)
    return msgspec.structs.replace(candidate, gates=gates, timing=timing)


def decided(
    candidates: Sequence[Candidate], limits: Limits, *, confidence: float, accept: str
) -> list[Candidate]:
    """The candidates of one target, held to its limits and decided on.

    Args:
        candidates: as far as they were checked, the float model on each runtime among them.
        limits: what a variant may take.
        confidence: of the gate on latency.
        accept: the reason that was given for deploying on an undecided gate.
    """
    floats = {c.lane.runtime: _taken(c) for c in candidates if c.is_float}
    made = []
    for candidate in candidates:
        beside = None if candidate.is_float else floats.get(candidate.lane.runtime)
        limiting = limit_gates(limits, _taken(candidate), beside, confidence=confidence)
        gates = (*candidate.gates, *limiting)
        made.append(
            msgspec.structs.replace(candidate, gates=gates, choice=choose(gates, accept=accept))
        )
    return made


def _taken(candidate: Candidate) -> Taken:
    timing = candidate.timing
    return Taken(
        model_bytes=candidate.lane.artifact.size,
        memory_bytes=timing.memory_bytes or 0,
        start_ms=timing.load_ms or 0.0,
        processes=max(1, len(timing.loads_ms)),
        milliseconds=timing.milliseconds,
    )


def as_decided(
    candidates: Sequence[Candidate], recipe: Recipe, *, accept: str = ""
) -> list[Candidate]:
    """The candidates that a recipe decided on: their speed is its word, all else must hold again.

    Args:
        candidates: with their gates of this time.
        recipe: what was decided.
        accept: the reason that was given for deploying on an undecided gate.

    Raises:
        GateFailed: a gate other than speed fails, or is undecided and nobody accepted that.
    """
    decided = {(v.target, v.runtime, v.precision): v for v in recipe.variants}
    kept = []
    for candidate in candidates:
        lane = candidate.lane
        key = (candidate.target.name, lane.runtime, lane.artifact.precision)
        if key not in decided:
            continue
        accepted = decided[key].accepted
        gates = [gate for gate in candidate.gates if gate.name != "speedup"]
        choice = choose(gates, accept=accepted or accept)
        if not choice.deployable:
            raise GateFailed(
                f"The recipe's {lane.artifact.precision} for {candidate.target.name} on "
                f"{lane.runtime} does not pass its gates here.",
                why=f"{choice.reason[0].upper()}{choice.reason[1:]}",
                fix=choice.remedy
                or "Convert without --recipe, or with the bounds it was made for.",
                undecided=choice.undecided,
            )
        choice = Choice(deployable=True, accepted=accepted, reason="as the recipe says")
        kept.append(msgspec.structs.replace(candidate, choice=choice))
    return kept


def recipe_of(
    chosen: Sequence[Candidate], targets: Sequence[TargetProfile], inputs: Inputs
) -> Recipe:
    """What was decided, written down: the variants of each target, best first.

    Args:
        chosen: the candidates that become variants.
        targets: in the order of the conversion.
        inputs: digests of what went in.
    """
    variants = []
    for target in targets:
        mine = sorted((c for c in chosen if c.target.name == target.name), key=_by_speed)
        variants += [
            VariantRecipe(
                target=target.name,
                runtime=candidate.lane.runtime,
                precision=candidate.lane.artifact.precision,
                rank=rank,
                rules=candidate.lane.artifact.rules,
                accepted=candidate.choice.accepted,
                settings=candidate.compiled.settings if candidate.compiled else {},
            )
            for rank, candidate in enumerate(mine)
        ]
    made = {c.lane.artifact.format for c in chosen if c.compiled is None}
    tools = tool_versions() | (toolchain_versions() if TFLITE in made else {})
    for candidate in chosen:
        tools |= candidate.compiled.tools if candidate.compiled else {}
    return Recipe(tools=tools, inputs=inputs, variants=tuple(variants))


def _by_speed(candidate: Candidate) -> tuple[float, bool]:
    """The fastest first; where nothing was timed, what was accepted before float32."""
    latency = candidate.timing.latency
    return latency.p50_ms if latency else 0.0, candidate.is_float
