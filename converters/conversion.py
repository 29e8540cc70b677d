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

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

from cloud_sync.golden import GoldenSet
from converters import build
from converters.backends.compiling import Compiler, joined
from converters.baseline import Baseline, judge_float
from converters.cache import Cache, default_cache
from converters.candidates import (
    Candidate,
    as_decided,
    candidates_of,
    decided,
    float_candidates,
    recipe_of,
)
from converters.cluster import RayExecutor
from converters.contest import Contest, Contestants
from converters.decide import in_brief, kept_because
from converters.diagnosis import Diagnosis, diagnose
from converters.executor import Executor, LocalExecutor
from converters.golden import golden_set
from converters.lanes import Lane
from converters.left_out import left_out_of
from converters.loading import Loaded, load
from converters.losses import losses_of
from converters.nearest import refused
from converters.places import Places
from converters.plan import flavours_of
from converters.progress import Progress, Silent
from converters.recipe import FLOAT
from converters.request import Request, check
from converters.result import ConversionResult, Failed, LeftOut
from converters.workshop import Workshop
from converters.workspace import workspace
from edgeml.errors import UserError
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
        options: `metric`, `max_drop`, `confidence`, `min_speedup`, `limits`, `accept_undecided`,
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
        with workspace(request.out) as folder:
            loaded = load(request, progress)
            cache = cache or default_cache()
            workshop = Workshop(loaded, folder, cache, progress)
            with closing(workshop), Places(executor, loaded, cache, progress) as places:
                places.here.start_ahead()
                made = folder / "compiled"
                made.mkdir()
                return _Conversion(
                    request,
                    loaded,
                    workshop=workshop,
                    places=places,
                    compiler=Compiler(
                        loaded,
                        request,
                        workshop,
                        places.here,
                        folder=made,
                        cache=cache,
                        progress=progress,
                    ),
                    cache=cache,
                    progress=progress,
                ).finish(folder)
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
        places: Places,
        compiler: Compiler,
        cache: Cache,
        progress: Progress,
    ) -> None:
        self._request = request
        self._loaded = loaded
        self._workshop = workshop
        self._places = places
        self._compiler = compiler
        self._cache = cache
        self._progress = progress
        for skipped in loaded.plan.skipped:
            progress.note(
                f"{skipped.target} is left out, it cannot be executed here: {skipped.reason}."
            )
        for remark in loaded.evaluation.remarks:
            progress.note(f"Warning: {remark}")

    def finish(self, folder: Path) -> ConversionResult:
        """Search, decide and write the release."""
        request, loaded = self._request, self._loaded
        self._compiler.check()
        self._workshop.begin(loaded.plan.all_runtimes)
        baseline = judge_float(self._workshop, self._places.here, loaded, request, self._progress)
        contests = self._contests(baseline)
        raced = self._candidates(baseline, contests)
        self._workshop.settle()
        candidates = raced + self._compiler.compile(baseline.reference)
        chosen = [candidate for candidate in candidates if candidate.choice.deployable]
        doubted = [candidate for candidate in candidates if not candidate.choice.deployable]
        left_out = left_out_of(
            candidates, contests, loaded.plan.foreign, is_replayed=loaded.recipe is not None
        )
        for target, error in refused(raced, left_out).items():
            self._compiler.fail(target, error)
        failures = self._compiler.failures
        if not chosen:
            raise joined(failures)
        self._progress.step("Looking at the calibration and the sensitive nodes")
        diagnosis = diagnose(
            self._workshop,
            loaded,
            self._cache,
            candidates,
            [attempt for contest in contests.values() for attempt in contest.attempts],
        )
        warnings = loaded.evaluation.remarks + baseline.warnings + self._told(diagnosis)
        losses = losses_of(baseline.preprocessing, baseline.conversions, candidates)
        self._progress.step("Recording outputs on the golden set")
        golden = self._golden(baseline.lanes.get(chosen[0].lane.runtime, baseline.reference))
        recorded = {
            (candidate.target.name, candidate.lane.key): self._places.recordings(candidate, golden)
            for candidate in chosen
        }
        targets = (*loaded.plan.targets, *loaded.plan.compiled)
        failed = tuple(Failed.by(target, error) for target, error in failures.items())
        self._progress.step("Writing the release")
        skipped = loaded.plan.skipped + self._compiler.skipped
        parts = build.Parts(
            request=request,
            metric=loaded.metric,
            host=loaded.host,
            pipeline=loaded.pipeline,
            recipe=loaded.recipe or recipe_of(chosen, targets, loaded.inputs),
            candidates=tuple(chosen),
            doubted=tuple(doubted),
            attempts={
                "+".join(flavours): contest.attempts for flavours, contest in contests.items()
            },
            golden=golden,
            recorded=recorded,
            warnings=warnings,
            losses=losses,
            diagnosis=diagnosis,
            skipped=skipped,
            failed=failed,
        )
        written = build.write(parts, folder / "release")
        return ConversionResult(
            release=written.release,
            evidence=written.evidence,
            path=request.out,
            model=request.name,
            version=request.version,
            variants=written.variants,
            left_out=tuple(left_out),
            skipped=skipped,
            failed=failed,
            float_kept_because=kept_because(
                _why_not([c for c in left_out if c.target not in failures]),
                {
                    target: [
                        (v.precision if v.quantization else FLOAT, v.runtime) for v in variants
                    ]
                    for target, variants in groupby(written.variants, lambda v: v.target)
                },
            ),
            warnings=warnings,
            doubted=() if request.accept_undecided else baseline.warnings,
            losses=losses,
            calibration=diagnosis.calibration,
        )

    def _told(self, diagnosis: Diagnosis) -> tuple[str, ...]:
        """What is wrong with the calibration."""
        report = diagnosis.calibration
        if report is None:
            return ()
        found = report.warnings if diagnosis.move else report.input_warnings
        warnings = tuple(f"Calibration: {warning}" for warning in found)
        for warning in warnings:
            self._progress.note(f"Warning: {warning}")
        return warnings

    def _contests(self, baseline: Baseline) -> dict[tuple[str, ...], Contest]:
        contestants = Contestants(
            self._workshop, self._places.here, self._loaded, self._request, self._progress
        )
        contests: dict[tuple[str, ...], Contest] = {}
        recipe, targets = self._loaded.recipe, self._loaded.plan.targets
        for flavours in dict.fromkeys(flavours_of(target) for target in targets):
            mine = [target for target in targets if flavours_of(target) == flavours]
            runtimes = list(
                dict.fromkeys(r for target in mine for r in self._runtimes(target, baseline))
            )
            if recipe is None:
                contests[flavours] = contestants.search(
                    flavours, runtimes, most_bytes=self._most_bytes(mine)
                )
            else:
                names = {target.name for target in mine}
                lanes = {
                    Lane(self._workshop.make(variant.rules, variant.runtime), variant.runtime)
                    for variant in recipe.variants
                    if variant.target in names and variant.precision != FLOAT
                }
                contests[flavours] = contestants.replay(
                    sorted(lanes, key=lambda lane: lane.key), runtimes
                )
        return contests

    def _most_bytes(self, targets: Sequence[TargetProfile]) -> int | None:
        """The largest file that any of the targets takes; None for no limit."""
        limits = [self._request.limits.within(t.limits).max_model_bytes for t in targets]
        return max((limit for limit in limits if limit), default=None) if all(limits) else None

    def _candidates(
        self, baseline: Baseline, contests: Mapping[tuple[str, ...], Contest]
    ) -> list[Candidate]:
        candidates: list[Candidate] = []
        request, reference = self._request, self._workshop.float
        for target in self._loaded.plan.targets:
            contest = contests[flavours_of(target)]
            runtimes = self._runtimes(target, baseline)
            floats = [baseline.lanes[runtime] for runtime in runtimes]
            contenders = [c for c in contest.contenders if c.lane.runtime in runtimes]
            lanes = [*floats, *(contender.lane for contender in contenders)]
            judged = {
                lane.key: self._places.here.judge(lane, self._workshop.float_on(lane.runtime))
                for lane in lanes
            }
            limits = request.limits.within(target.limits)
            timings = contest.timings
            if limits.max_start_ms or limits.max_memory_bytes:
                again = self._places.here.started_again
                timings = {lane.key: again(lane, timings[lane.key]) for lane in lanes}
            made = candidates_of(target, contenders, timings, judged, baseline.conversions)
            made += float_candidates(target, floats, timings, judged, baseline.conversions)
            made = decided(
                [self._places.checked(c, reference, request) for c in made],
                limits,
                confidence=request.confidence,
                accept=request.accept_undecided,
            )
            if self._loaded.recipe is not None:
                recipe, accept = self._loaded.recipe, request.accept_undecided
                made = as_decided(made, recipe, accept=accept)
            candidates += made
        return candidates

    def _runtimes(self, target: TargetProfile, baseline: Baseline) -> tuple[str, ...]:
        """The runtimes of a target that run the model here."""
        return tuple(r for r in self._loaded.plan.runtimes_of(target) if r in baseline.lanes)

    def _golden(self, lane: Lane) -> GoldenSet:
        """Evaluation samples in which something was inferred, with the float model's outputs."""
        here = self._places.here
        found = here.judge(lane, lane.artifact).found
        with here.opened(lane) as session:
            return golden_set(session, self._loaded.task, self._loaded.evaluation, found)


def _why_not(left_out: Sequence[LeftOut]) -> dict[str, str]:
    """By target, why its best quantized candidate is no variant; of one that is doubted first."""
    said: dict[str, str] = {}
    for candidate in sorted(left_out, key=lambda candidate: not candidate.undecided):
        if candidate.precision != FLOAT:
            brief = in_brief(candidate.precision, candidate.gates, candidate.reason)
            said.setdefault(candidate.target, brief)
    return said
