"""The conversion: a trained model in, a release out, and everything on the way executed.

    load -> search (quantize, time, judge) -> last race -> gates -> decide
         -> golden set and recorded outputs -> recipe -> release, evidence and report

Each step is a module of its own; this one only leads from one to the next. All files are
made in a folder beside the output, which is renamed at the end: a conversion that is stopped
or fails leaves nothing there, and the next one takes what was finished from the cache.

What enters the release's digest is decided by gates and written down in the recipe; a replay
of the recipe takes its decisions instead of its own measurements, and so gives the same
digest. What was measured goes into the evidence, which is another artifact.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.evidence import Accuracy, GateResult
from cloud_sync.golden import GoldenSet, Recorded
from converters import build
from converters.arena import Arena, Lane
from converters.cache import Cache, default_cache
from converters.candidates import (
    Candidate,
    as_decided,
    candidates_of,
    emulated_candidate,
    float_candidates,
)
from converters.contest import Contest, Contestants, nothing_raced
from converters.decide import kept_because, warnings_about
from converters.emulated import Emulator, no_speed
from converters.executor import Executor, LocalExecutor, RayExecutor
from converters.gates import metric_gate, metric_score
from converters.golden import golden_set, recorded_outputs
from converters.loading import Loaded, load
from converters.metrics import chance_of
from converters.mismatch import find_mismatch
from converters.plan import EMULATED_RUNTIMES, flavours_of
from converters.progress import Progress, Silent
from converters.recipe import FLOAT, Recipe, VariantRecipe
from converters.request import Request, check
from converters.result import ConversionResult, LeftOut
from converters.toolchains import emulation
from converters.tools import tool_versions
from converters.workshop import Workshop
from edgeml.errors import ModelError, UserError
from hardware.capabilities import Capabilities, Cpu
from hardware.profiles import TargetProfile


def convert(
    model: str | Path,
    *,
    calibration: str | Path,
    evaluation: str | Path,
    name: str,
    version: str,
    out: str | Path,
    targets: Sequence[str] = (),
    pipeline: str | Path | None = None,
    recipe: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ConversionResult:
    """Convert a model into a release folder.

    Args:
        model: an ONNX file.
        calibration: samples which set the int8 ranges: an `.npz` with `x`, a folder of
            images, or `module:function`.
        evaluation: other samples with what is right about them, in the same forms.
        name: the model's name, part of a registry path.
        version: the release's version.
        out: the folder that the release becomes; it must not hold anything else.
        targets: targets or groups of them (`cpu`); with a recipe, none.
        pipeline: pre- and post-processing; without it samples are model inputs.
        recipe: a recipe to replay.
        progress: told what happens.
        options: `metric`, `max_drop`, `confidence`, `min_speedup`, `accept_undecided`,
            `runtimes` and `executor` as in `converters.request.Request`.

    Raises:
        EdgemlError: what is wrong with the request, the model, the data or this machine.
    """
    request = Request(
        model=Path(model),
        calibration=str(calibration),
        evaluation=str(evaluation),
        name=name,
        version=version,
        out=Path(out),
        targets=tuple(targets),
        pipeline=Path(pipeline) if pipeline else None,
        recipe=Path(recipe) if recipe else None,
        **options,
    )
    return run(request, progress or Silent())


def run(request: Request, progress: Progress, cache: Cache | None = None) -> ConversionResult:
    """Carry out a checked request; see `convert`."""
    check(request)
    build.refuse_occupied(request)
    executor: Executor = RayExecutor() if request.executor == "ray" else LocalExecutor()
    try:
        with _workspace(request.out) as folder:
            loaded = load(request, progress)
            cache = cache or default_cache()
            workshop = Workshop(loaded, folder, cache, progress)
            with ExitStack() as stack:
                arena = stack.enter_context(closing(Arena(executor, loaded, cache, progress)))
                conversion = _Conversion(
                    request,
                    loaded,
                    workshop=workshop,
                    arena=arena,
                    cache=cache,
                    progress=progress,
                    stack=stack,
                )
                return conversion.finish(folder)
    except OSError as error:
        raise UserError(
            f"The release could not be written to {request.out}.",
            why=f"{error.strerror or error}.",
            fix="Free space or choose another --out.",
        ) from None
    finally:
        executor.close()


class _Conversion:
    def __init__(
        self,
        request: Request,
        loaded: Loaded,
        *,
        workshop: Workshop,
        arena: Arena,
        cache: Cache,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        self._cache = cache
        self._stack = stack
        self._emulated: dict[str, Arena] = {}
        self._request = request
        self._loaded = loaded
        self._workshop = workshop
        self._arena = arena
        self._progress = progress
        self._usable: list[str] = []
        for skipped in loaded.plan.skipped:
            progress.note(
                f"{skipped.target} is left out, it cannot be executed here: {skipped.reason}."
            )

    def finish(self, folder: Path) -> ConversionResult:
        """Search, decide and write the release."""
        warnings = self._judge_float()
        contests = self._contests()
        candidates = self._candidates(contests)
        chosen = [candidate for candidate in candidates if candidate.choice.deployable]
        doubted = [candidate for candidate in candidates if not candidate.choice.deployable]
        self._progress.step("Recording outputs on the golden set")
        baseline = self._workshop.float
        lane = Lane(baseline, chosen[0].lane.runtime)
        found = self._arena.judge(lane, baseline).found
        with self._arena.opened(lane) as session:
            golden = golden_set(session, self._loaded.task, self._loaded.evaluation, found)
        recorded = {
            (candidate.target.name, candidate.lane.key): self._recordings(candidate, golden)
            for candidate in chosen
        }
        recipe = self._recipe(chosen)
        left_out = _left_out(candidates, contests)
        self._progress.step("Writing the release")
        parts = build.Parts(
            request=self._request,
            metric=self._loaded.metric,
            host=self._loaded.host,
            pipeline=self._loaded.pipeline,
            recipe=recipe,
            candidates=tuple(chosen),
            doubted=tuple(doubted),
            attempts={
                "+".join(flavours): contest.attempts for flavours, contest in contests.items()
            },
            golden=golden,
            recorded=recorded,
            warnings=warnings,
        )
        written = build.write(parts, folder / "release")
        return ConversionResult(
            release=written.release,
            evidence=written.evidence,
            path=self._request.out,
            model=self._request.name,
            version=self._request.version,
            variants=written.variants,
            left_out=tuple(left_out),
            skipped=self._loaded.plan.skipped,
            float_kept_because=kept_because(
                {c.target: c.reason for c in left_out},
                {v.target for v in written.variants if v.precision != FLOAT},
            ),
            warnings=warnings,
        )

    def _judge_float(self) -> tuple[str, ...]:
        """Judge the float model on each runtime, which all else is compared with; warnings.

        A runtime that cannot run the model is left out, as long as one can.
        """
        baseline, metric = self._workshop.float, self._loaded.metric
        failures: list[ModelError] = []
        scores: list[Accuracy] = []
        for runtime in self._loaded.plan.all_runtimes:
            try:
                judged = self._arena.judge(Lane(baseline, runtime), baseline)
            except ModelError as error:
                failures.append(error)
                self._progress.note(f"{runtime} is left out: {error}")
                continue
            score = metric_score(metric, judged.outcomes, confidence=self._request.confidence)
            self._progress.note(
                f"float32 on {runtime}: {score.metric} {score.value:.4f} "
                f"({score.low:.4f} to {score.high:.4f}) on {score.n} samples"
            )
            scores.append(score)
            self._usable.append(runtime)
        if not scores:
            raise failures[0]
        warnings = warnings_about(scores[0], chance_of(metric, self._loaded.evaluation))
        with self._arena.opened(Lane(baseline, self._usable[0])) as session:
            mismatch = find_mismatch(session, self._loaded)
        if mismatch is not None:
            warnings += (str(mismatch),)
        for warning in warnings:
            self._progress.note(f"Warning: {warning}")
        return warnings

    def _runtimes_of(self, target: TargetProfile) -> tuple[str, ...]:
        """The runtimes of a target that run the model here."""
        return tuple(r for r in self._loaded.plan.runtimes_of(target) if r in self._usable)

    def _contests(self) -> dict[tuple[str, ...], Contest]:
        contestants = Contestants(
            self._workshop, self._arena, self._loaded, self._request, self._progress
        )
        contests: dict[tuple[str, ...], Contest] = {}
        recipe, targets = self._loaded.recipe, self._loaded.plan.targets
        for flavours in dict.fromkeys(flavours_of(target) for target in targets):
            mine = [target for target in targets if flavours_of(target) == flavours]
            runtimes = list(dict.fromkeys(r for target in mine for r in self._runtimes_of(target)))
            if recipe is None:
                contests[flavours] = contestants.search(flavours, runtimes)
            else:
                names = {target.name for target in mine}
                lanes = {
                    Lane(self._workshop.make(variant.rules), variant.runtime)
                    for variant in recipe.variants
                    if variant.target in names and variant.precision != FLOAT
                }
                contests[flavours] = contestants.replay(
                    sorted(lanes, key=lambda lane: lane.key), runtimes
                )
        return contests

    def _candidates(self, contests: dict[tuple[str, ...], Contest]) -> list[Candidate]:
        candidates: list[Candidate] = []
        baseline, conversions = self._workshop.float, self._conversions()
        for target in self._loaded.plan.targets:
            contest = contests[flavours_of(target)]
            runtimes = self._runtimes_of(target)
            floats = [Lane(baseline, runtime) for runtime in runtimes]
            contenders = [c for c in contest.contenders if c.lane.runtime in runtimes]
            lanes = [*floats, *(contender.lane for contender in contenders)]
            judged = {lane.key: self._arena.judge(lane, baseline) for lane in lanes}
            made = candidates_of(
                target, contenders, contest.timings, judged, self._request.accept_undecided
            )
            made += float_candidates(target, floats, contest.timings, judged, conversions)
            made = [self._checked(candidate) for candidate in made]
            if self._loaded.recipe is not None:
                made = as_decided(made, self._loaded.recipe)
            candidates += made
        return candidates

    def _checked(self, candidate: Candidate) -> Candidate:
        """A candidate as far as it can be checked for its target: here, or emulated."""
        plan, request = self._loaded.plan, self._request
        target, lane = candidate.target, candidate.lane
        candidate = msgspec.structs.replace(
            candidate, verification=plan.verification_of(target, lane.runtime)
        )
        cpu = plan.emulated.get(target.name)
        if cpu is None or lane.runtime not in EMULATED_RUNTIMES:
            return candidate
        emulator = Emulator(
            self._arena,
            self._emulated_arena(target),
            cpu=cpu,
            loaded=self._loaded,
            cache=self._cache,
            progress=self._progress,
        )
        found = emulator.verify(
            lane,
            self._workshop.float,
            max_drop=request.max_drop,
            confidence=request.confidence,
        )
        speed = no_speed(cpu, request.min_speedup) if target.name in plan.foreign else None
        return emulated_candidate(candidate, found, speed, request.accept_undecided)

    def _emulated_arena(self, target: TargetProfile) -> Arena:
        """Where a target's processor is emulated; one for each, closed at the end."""
        cpu = self._loaded.plan.emulated[target.name]
        if cpu not in self._emulated:
            command = emulation.command(target.architecture, cpu)
            executor = LocalExecutor(command, name=f"emulated {cpu}")
            arena = Arena(executor, self._loaded, self._cache, self._progress)
            self._emulated[cpu] = self._stack.enter_context(closing(arena))
        return self._emulated[cpu]

    def _recordings(self, candidate: Candidate, golden: GoldenSet) -> list[Recorded]:
        """What a variant answers to the golden set, on each processor that executes it."""
        plan, target, lane = self._loaded.plan, candidate.target, candidate.lane
        places: list[tuple[Arena, Capabilities]] = []
        if target.name not in plan.foreign:
            places.append((self._arena, self._loaded.host))
        if target.name in plan.emulated and lane.runtime in EMULATED_RUNTIMES:
            there = Capabilities(
                architecture=target.architecture,
                cpu=Cpu(features=tuple(f.split("|")[0] for f in target.cpu_features)),
            )
            places.append((self._emulated_arena(target), there))
        made = []
        for arena, host in places:
            with arena.opened(lane) as session:
                made.append(
                    recorded_outputs(
                        session,
                        self._loaded.task,
                        golden,
                        precision=lane.artifact.precision,
                        host=host,
                        is_emulated=arena is not self._arena,
                    )
                )
        return made

    def _conversions(self) -> dict[str, GateResult]:
        """By runtime but the first, what the float model itself loses on it."""
        baseline = self._workshop.float
        first, *others = self._usable
        wanted = self._arena.judge(Lane(baseline, first), baseline)
        gates = {}
        for runtime in others:
            gate = metric_gate(
                self._loaded.metric,
                wanted.outcomes,
                self._arena.judge(Lane(baseline, runtime), baseline).outcomes,
                max_drop=self._request.max_drop,
                confidence=self._request.confidence,
            )
            gates[runtime] = msgspec.structs.replace(gate, name="conversion")
        return gates

    def _recipe(self, chosen: Sequence[Candidate]) -> Recipe:
        if self._loaded.recipe:
            return self._loaded.recipe
        variants = []
        for target in self._loaded.plan.targets:
            mine = [c for c in chosen if c.target.name == target.name]
            mine.sort(key=_by_speed)
            variants += [
                VariantRecipe(
                    target=target.name,
                    runtime=candidate.lane.runtime,
                    precision=candidate.lane.artifact.precision,
                    rank=rank,
                    rules=candidate.lane.artifact.rules,
                    accepted=candidate.choice.accepted,
                )
                for rank, candidate in enumerate(mine)
            ]
        return Recipe(tools=tool_versions(), inputs=self._loaded.inputs, variants=tuple(variants))


def _by_speed(candidate: Candidate) -> tuple[float, bool]:
    """The fastest first; where nothing was timed, what was accepted before float32."""
    latency = candidate.timing.latency
    return latency.p50_ms if latency else 0.0, candidate.lane.artifact.precision == FLOAT


def _left_out(
    candidates: Sequence[Candidate], contests: dict[tuple[str, ...], Contest]
) -> list[LeftOut]:
    """Quantized candidates that are no variants, and targets for which there was none."""
    left_out = [
        LeftOut(
            target=candidate.target.name,
            runtime=candidate.lane.runtime,
            precision=candidate.lane.artifact.precision,
            reason=candidate.choice.reason,
            undecided=candidate.choice.undecided,
            gates=candidate.gates,
        )
        for candidate in candidates
        if not candidate.choice.deployable
    ]
    for target in {c.target.name: c.target for c in candidates}.values():
        contest = contests[flavours_of(target)]
        if contest.contenders:
            continue
        left_out.append(
            LeftOut(target=target.name, precision="int8", reason=nothing_raced(contest.attempts))
        )
    return left_out


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A folder beside `out`, gone at the end; what shall stay is renamed out of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
