"""What to know of a calibration, and where quantization hurts: looked at once, after the search.

Both are about the static file that came furthest, and cost little beside the search: ranges
and histograms were taken for it already, and the loss at each node comes from one pass over a
few calibration samples. They decide nothing; they are for who wants to do better.
"""

from collections.abc import Sequence
from itertools import islice

import msgspec
import numpy as np

from converters.cache import Cache
from converters.candidates import Candidate
from converters.contest import Attempt
from converters.loading import Loaded
from converters.methods import (
    CalibrationReport,
    NodeLoss,
    NotQuantizableError,
    Prepared,
    Range,
    Statistics,
    reference_of,
    report_on,
    sensitivity,
)
from converters.recipe import Method, Parameters
from converters.tools import tool_versions
from converters.workshop import Artifact, Workshop
from hardware.runtimes.formats import ONNX

_SAMPLES = 4  # enough to rank nodes by; the loss of each is a mean over its elements
_LOOKED_AT = 64  # evaluation samples, enough to see that they are of another scale


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What the samples did, and the loss at each node of a file; `skipped` says why there is none.

    `move` is how the file was made that both are about; empty where no static one was.
    """

    move: str = ""
    calibration: CalibrationReport | None = None
    sensitivity: tuple[NodeLoss, ...] = ()
    skipped: str = ""


def diagnose(
    workshop: Workshop,
    loaded: Loaded,
    cache: Cache,
    candidates: Sequence[Candidate],
    attempts: Sequence[Attempt],
) -> Diagnosis:
    """Look at the best static file that was made.

    Args:
        workshop: what made it.
        loaded: the calibration data.
        cache: keeps what was found.
        candidates: those that were decided on, the best first.
        attempts: all that was tried.
    """
    if workshop.float.format != ONNX:
        return Diagnosis(skipped="the model is no ONNX file, so what calibrates is another's tool")
    move, artifact = _best(workshop, candidates, attempts)
    inputs = loaded.inputs
    parts = [
        *(inputs.model, inputs.pipeline, inputs.calibration, artifact and artifact.rules),
        *(inputs.evaluation, _SAMPLES, _LOOKED_AT, tool_versions()),
    ]
    known = cache.get("diagnosis", parts)
    if known is None:
        known = msgspec.msgpack.encode(_diagnosed(workshop, loaded, artifact))
        cache.put("diagnosis", parts, known)
    return msgspec.structs.replace(msgspec.msgpack.decode(known, type=Diagnosis), move=move)


def _best(
    workshop: Workshop, candidates: Sequence[Candidate], attempts: Sequence[Attempt]
) -> tuple[str, Artifact | None]:
    """How the best static file was made, and the file: a candidate, else the most faithful."""
    for candidate in sorted(candidates, key=lambda c: not c.choice.deployable):
        if candidate.compiled is None and parameters_of(candidate.lane.artifact) is not None:
            return candidate.move, candidate.lane.artifact
    made = {artifact.digest: artifact for artifact in workshop.artifacts}
    static = [a for a in attempts if a.artifact in made and parameters_of(made[a.artifact])]
    if not static:
        return "", None
    best = max(static, key=lambda a: (bool(a.accuracy), a.fidelity or 0.0))
    return best.move, made[best.artifact]


def parameters_of(artifact: Artifact) -> Parameters | None:
    """How an ONNX file was quantized statically; None where it was not."""
    static = (rule for rule in artifact.rules if rule.method is Method.STATIC_QDQ)
    rule = next(static, None)
    return rule.parameters if rule and artifact.format == ONNX else None


def _diagnosed(workshop: Workshop, loaded: Loaded, artifact: Artifact | None) -> Diagnosis:
    """The samples as they calibrate a file; without one, what of them holds for any."""
    try:
        prepared, statistics = workshop.prepared, workshop.statistics
    except NotQuantizableError as error:
        return Diagnosis(skipped=str(error))
    parameters = parameters_of(artifact) if artifact else None
    if artifact is None or parameters is None:
        report = _report(loaded, prepared, statistics, Parameters())
        return Diagnosis(calibration=report, skipped="No ONNX file was quantized statically.")
    reference = reference_of(prepared, statistics, artifact.rules)
    if parameters.equalize:
        prepared, statistics = statistics.equalized[parameters.per_channel]
    report = _report(loaded, prepared, statistics, parameters)
    try:
        losses = sensitivity(
            reference,
            artifact.path.read_bytes(),
            lambda: workshop.feeds(_SAMPLES),
            samples=_SAMPLES,
        )
    except NotQuantizableError as error:
        return Diagnosis(calibration=report, skipped=str(error))
    return Diagnosis(calibration=report, sensitivity=losses)


def _report(
    loaded: Loaded, prepared: Prepared, statistics: Statistics, parameters: Parameters
) -> CalibrationReport:
    return report_on(
        prepared,
        statistics,
        calibration=parameters.calibration,
        percentile=parameters.percentile,
        digests=loaded.calibration.sample_digests,
        labels=_classes(loaded.calibration.labels),
        classes=len(loaded.task.labels),
        evaluated=_evaluated(loaded),
    )


def _evaluated(loaded: Loaded) -> dict[str, Range]:
    """What the first evaluation samples hold of each float input."""
    found: dict[str, Range] = {}
    for sample in islice(loaded.evaluation, _LOOKED_AT):
        tensors = loaded.task.prepare(sample) or ()
        for spec, tensor in zip(loaded.model.inputs, tensors, strict=False):
            if tensor.dtype.kind == "f":
                low, high = float(tensor.min()), float(tensor.max())
                known = found.get(spec.name, Range(low, high))
                found[spec.name] = Range(min(low, known.low), max(high, known.high))
    return found


def _classes(labels: np.ndarray | None) -> list[int]:
    """Class numbers; none where labels are something else."""
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return []
    return [int(label) for label in labels]
