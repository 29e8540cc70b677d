"""The float model, judged on each runtime before anything else: what candidates are compared with.

What is lost here is not the quantization's fault, and is told apart from it: a pre-processing
that is not the one of the training costs every runtime alike, a conversion only the runtime
that computes something else than the first one does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cloud_sync.evidence import GateResult, Verdict
from converters.arena import Arena
from converters.decide import warnings_about
from converters.evaluation import UnfitError
from converters.gates import metric_gate, metric_score
from converters.lanes import Lane
from converters.loading import Loaded
from converters.metrics import chance_of
from converters.mismatch import judge_preprocessing
from converters.progress import Progress
from converters.request import Request
from converters.workshop import Workshop
from edgeml.errors import ModelError

_NATIVE = {".onnx": "onnxruntime", ".tflite": "litert"}  # computes a format as it is meant


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The float model's lanes by runtime.

    `reference` is the lane that the others are compared with: on the runtime of the model's
    own format, raced or not. `preprocessing` is the gate on how it is fed, `conversions` are
    those on what it loses on each other runtime; `warnings` are about the float model itself.
    """

    reference: Lane
    lanes: Mapping[str, Lane]
    preprocessing: GateResult
    conversions: Mapping[str, GateResult]
    warnings: tuple[str, ...]


def judge_float(
    workshop: Workshop, arena: Arena, loaded: Loaded, request: Request, progress: Progress
) -> Baseline:
    """Judge the float model on each runtime; one that cannot run it is left out.

    Raises:
        ModelError: no runtime can run it, or data, labels and metric do not fit it.
    """
    failures: dict[str, ModelError] = {}
    lanes: dict[str, Lane] = {}
    outcomes: dict[str, Sequence[Any]] = {}
    raced = loaded.plan.all_runtimes
    native = _NATIVE[workshop.float.path.suffix]
    for runtime in dict.fromkeys((native, *raced)):
        try:
            artifact = workshop.float if runtime == native else workshop.float_on(runtime)
            lane = Lane(artifact, runtime)
            judged = arena.judge(lane, lane.artifact)
        except ModelError as error:
            if runtime in request.runtimes or (isinstance(error, UnfitError) and not lanes):
                raise  # it was asked for by name, or the data would fit on no other either
            failures[runtime] = error
            progress.note(f"{runtime} is left out: {error}")
            continue
        lanes[runtime], outcomes[runtime] = lane, judged.outcomes
        score = metric_score(loaded.metric, judged.outcomes, confidence=request.confidence)
        progress.note(
            f"{artifact.weights} on {runtime}: {score.metric} {score.value:.4f} "
            f"({score.low:.4f} to {score.high:.4f}) on {score.n} samples"
        )
    if not lanes or (raced and not set(raced) & set(lanes)):
        raise _nowhere(request, failures)
    reference = next(iter(lanes.values()))
    compared = _compared(arena, lanes, request, progress)
    if raced and not set(raced) & set(compared):
        raise ModelError(
            f"No runtime here computes what {reference.runtime} does.",
            why=f"Raced are {', '.join(raced)}.",
        )
    preprocessing = arena.ask(
        "pre-processing",
        reference,
        GateResult,
        lambda session: judge_preprocessing(session, loaded),
    )
    score = metric_score(loaded.metric, outcomes[reference.runtime], confidence=request.confidence)
    warnings = warnings_about(score, chance_of(loaded.metric, loaded.evaluation))
    if preprocessing.result is Verdict.FAIL:
        warnings += (preprocessing.reason,)
    for warning in warnings:
        progress.note(f"Warning: {warning}")
    return Baseline(
        reference=reference,
        lanes={r: lane for r, lane in lanes.items() if r in raced and r in compared},
        preprocessing=preprocessing,
        conversions={
            runtime: _conversion(compared[reference.runtime], given, loaded, request)
            for runtime, given in compared.items()
            if runtime in raced and runtime != reference.runtime
        },
        warnings=warnings,
    )


def _nowhere(request: Request, failures: Mapping[str, ModelError]) -> ModelError:
    """The error where no runtime runs the model: what each of them said."""
    if len(failures) == 1:
        return next(iter(failures.values()))
    return ModelError(
        f"No runtime here can run {request.model}.",
        why=" ".join(f"{name}: {error.why or error.what}" for name, error in failures.items()),
        fix=next((error.fix for error in failures.values() if error.fix), ""),
    )


def _compared(
    arena: Arena, lanes: Mapping[str, Lane], request: Request, progress: Progress
) -> dict[str, Sequence[Any]]:
    """Outcomes by runtime, each beside the first; one that cannot stand there is left out."""
    reference, *others = lanes.values()
    compared: dict[str, Sequence[Any]] = {
        reference.runtime: arena.judge(reference, reference.artifact).outcomes
    }
    for lane in others:
        runtime = lane.runtime
        try:
            compared[runtime] = arena.judge(lane, lane.artifact, beside=reference).outcomes
        except ModelError as error:  # such as answers of another shape
            if runtime in request.runtimes:
                raise
            progress.note(f"{runtime} is left out: {error}")
    return compared


def _conversion(
    wanted: Sequence[Any], given: Sequence[Any], loaded: Loaded, request: Request
) -> GateResult:
    """What the float model loses on a runtime beside another."""
    gate = metric_gate(
        loaded.metric,
        wanted,
        given,
        max_drop=request.max_drop,
        confidence=request.confidence,
    )
    return msgspec.structs.replace(gate, name="conversion")
