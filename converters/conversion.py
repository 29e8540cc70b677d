"""The conversion: a trained model in, a release out, and everything on the way executed.

    load -> prepare, calibrate -> quantize -> execute (accuracy, speed, memory) -> gates
         -> decide -> golden set and recorded outputs -> recipe -> release and evidence

Each step is a module of its own; this one only leads from one to the next. All files are
made in a folder beside the output, which is renamed at the end: a conversion that is stopped
or fails leaves nothing.

What enters the release's digest is decided by gates and written down in the recipe; a replay
of the recipe takes its decisions instead of its own measurements, and so gives the same
digest. What was measured goes into the evidence, which is another artifact.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from converters import build
from converters.candidates import Candidate
from converters.decide import Choice, choose, kept_because, warnings_about
from converters.gates import accuracy_of
from converters.golden import golden_set, recorded_outputs
from converters.loading import Loaded, load
from converters.making import make
from converters.progress import Progress, Silent
from converters.race import Race, Track, opened, race
from converters.recipe import FLOAT, Recipe, VariantRecipe
from converters.request import Request, check
from converters.result import ConversionResult, LeftOut
from converters.tools import tool_versions
from edgeml.errors import UserError


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
    **gates: Any,
) -> ConversionResult:
    """Convert a model into a release folder.

    Args:
        model: an ONNX file.
        calibration: an `.npz` with samples `x`, which set the int8 ranges.
        evaluation: an `.npz` with other samples `x` and their class numbers `y`.
        name: the model's name, part of a registry path.
        version: the release's version.
        out: the folder that the release becomes; it must not hold anything else.
        targets: targets or groups of them (`cpu`); with a recipe, none.
        pipeline: pre- and post-processing; without it samples are model inputs.
        recipe: a recipe to replay.
        progress: told what happens.
        gates: `metric`, `max_drop`, `confidence`, `min_speedup`, `accept_undecided` as in
            `converters.request.Request`.

    Raises:
        EdgemlError: what is wrong with the request, the model, the data or this machine.
    """
    request = Request(
        model=Path(model),
        calibration=Path(calibration),
        evaluation=Path(evaluation),
        name=name,
        version=version,
        out=Path(out),
        targets=tuple(targets),
        pipeline=Path(pipeline) if pipeline else None,
        recipe=Path(recipe) if recipe else None,
        **gates,
    )
    return run(request, progress or Silent())


def run(request: Request, progress: Progress) -> ConversionResult:
    """Carry out a checked request; see `convert`."""
    check(request)
    build.refuse_occupied(request)
    try:
        with _workspace(request.out) as folder:
            return _convert(request, folder, progress)
    except OSError as error:
        raise UserError(
            f"The release could not be written to {request.out}.",
            why=f"{error.strerror or error}.",
            fix="Free space or choose another --out.",
        ) from None


def _convert(request: Request, folder: Path, progress: Progress) -> ConversionResult:
    loaded = load(request, progress)
    for skipped in loaded.plan.skipped:
        progress.note(
            f"{skipped.target} is left out, it cannot be executed here: {skipped.reason}."
        )
    artifacts, candidates, refused = make(loaded, folder, progress)
    with opened(artifacts) as sessions:
        raced = race(Track(sessions, loaded.task, loaded.evaluation), artifacts, request, progress)
        choices = _choose(candidates, raced, request.accept_undecided, progress)
        progress.step("Recording outputs on the golden set")
        golden = golden_set(sessions[FLOAT], loaded.task, loaded.evaluation, raced.found)
        recorded = {
            artifact.key: recorded_outputs(
                sessions[artifact.key],
                loaded.task,
                golden,
                precision=artifact.precision,
                host=loaded.host,
            )
            for artifact in artifacts
        }
    warnings = warnings_about(
        accuracy_of(
            raced.measurements[FLOAT].correct, metric=request.metric, confidence=request.confidence
        ),
        classes=golden.outputs[0].shape[-1],
    )
    for warning in warnings:
        progress.note(f"Warning: {warning}")
    left_out = refused + _left_out(candidates, choices, raced)
    chosen = [c for c in candidates if choices[c].deployable]
    recipe = _recipe(loaded, chosen, choices)
    progress.step("Writing the release")
    parts = build.Parts(
        request=request,
        host=loaded.host,
        pipeline=loaded.pipeline,
        recipe=recipe,
        candidates=tuple(chosen),
        doubted=tuple(c for c in candidates if not choices[c].deployable),
        artifacts={artifact.key: artifact for artifact in artifacts},
        golden=golden,
        recorded=recorded,
        race=raced,
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
        skipped=loaded.plan.skipped,
        float_kept_because=kept_because({c.target: c.reason for c in left_out}),
        warnings=warnings,
    )


def _choose(
    candidates: Sequence[Candidate], raced: Race, accept: str, progress: Progress
) -> dict[Candidate, Choice]:
    choices = {}
    for candidate in candidates:
        if candidate.decided:
            accepted = candidate.decided.accepted
            choice = Choice(deployable=True, accepted=accepted, reason="as the recipe says")
        elif candidate.precision == FLOAT:
            choice = Choice(deployable=True, reason="the float model is always an answer")
        else:
            gates = raced.gates[candidate.key]
            choice = choose(gates.accuracy, gates.speed, accept=accept)
            word = "in" if choice.deployable else "left out"
            progress.note(f"{candidate.target.name} int8 {word}: {choice.reason}")
        choices[candidate] = choice
    return choices


def _left_out(
    candidates: Sequence[Candidate], choices: dict[Candidate, Choice], raced: Race
) -> list[LeftOut]:
    return [
        LeftOut(
            target=candidate.target.name,
            precision=candidate.precision,
            reason=choices[candidate].reason,
            undecided=choices[candidate].undecided,
            gates=(raced.gates[candidate.key].accuracy, raced.gates[candidate.key].speed),
        )
        for candidate in candidates
        if not choices[candidate].deployable
    ]


def _recipe(
    loaded: Loaded, chosen: Sequence[Candidate], choices: dict[Candidate, Choice]
) -> Recipe:
    if loaded.recipe:
        return loaded.recipe
    served = {c.target.name for c in chosen if c.precision != FLOAT}
    variants = [
        VariantRecipe(
            target=candidate.target.name,
            precision=candidate.precision,
            rank=int(candidate.precision == FLOAT and candidate.target.name in served),
            rules=candidate.rules,
            accepted=choices[candidate].accepted,
        )
        for candidate in chosen
    ]
    return Recipe(
        tools=tool_versions(),
        inputs=loaded.inputs,
        variants=tuple(sorted(variants, key=lambda v: (v.target, v.rank))),
    )


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A folder beside `out`, gone at the end; what shall stay is renamed out of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
