"""Is the model fed as it was trained? Other usual pre-processings are tried beside the given one.

A wrong order of channels or a wrong scale costs float and int8 alike, so that no comparison of
the two finds it. Here the float model answers the same samples with its inputs changed in the
usual ways; where one of them is shown to score better, that is said, with the numbers.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict
from converters.gates import metric_gate
from converters.loading import Loaded, Unfused
from hardware.runtimes import open_session
from hardware.runtimes.interface import Session

_MOST_SAMPLES = 200
_LEAST_SAMPLES = 40
_SECONDS = 20.0  # what slow models may take for it, about
_PASSES = 6
_LEAST_GAIN = 0.02
_CONFIDENCE = 0.99
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet's channels, red first
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_COLOURS = 3
_ROUNDING = 1e-5
_LARGEST_SHARE = 2.0  # values beyond this look like bytes, not like shares

Change = Callable[[np.ndarray], np.ndarray]
_Sample = tuple[list[np.ndarray], Any]


def judge_preprocessing(session: Session, loaded: Loaded) -> GateResult:
    """Try the usual changes on some evaluation samples.

    Args:
        session: the float model.
        loaded: task, metric and evaluation data; only images [1, C, H, W] or [1, H, W, C]
            are changed, the first of several inputs that is one (of uint8 images only the
            order of channels), and only metrics that know what is right can tell.

    Returns:
        The gate `pre-processing`: `baseline` is the best score that a change gave, `value` the
        score as the model is fed. It fails where a change is shown to be better, and passes
        where each is shown not to be.
    """
    if loaded.unfused is not None:
        before = msgspec.structs.replace(loaded, task=loaded.unfused.task, unfused=None)
        with _opened(loaded.unfused) as unfused:
            return judge_preprocessing(unfused, before)
    if loaded.metric.needs_reference or loaded.metric.needs_inputs:
        return _untold(f"the metric {loaded.metric.name} knows of no right answers")
    metric, samples = loaded.metric, list(_samples(loaded))
    which = _image_among(samples[0][0]) if samples else None
    if which is None:
        return _untold("the model takes no images")
    begun = time.perf_counter()
    session.run(samples[0][0])
    affordable = _SECONDS / _PASSES / (time.perf_counter() - begun)
    samples = samples[:: max(1, round(len(samples) / max(affordable, _LEAST_SAMPLES)))]

    def outcomes(change: Change | None) -> list[Any]:
        made = []
        for tensors, label in samples:
            fed = list(tensors)
            fed[which] = change(fed[which]) if change else fed[which]
            outputs = session.run(fed)
            made.append(metric.outcome(outputs, label, outputs))
        return made

    given = outcomes(None)
    mean, deviation = getattr(loaded.task, "normalisation", ((0.0,), (1.0,)))
    images = [tensors[which] for tensors, _ in samples]
    gates: dict[str, GateResult] = {}
    for name, change in _changes(
        images, np.asarray(mean, np.float32), np.asarray(deviation, np.float32)
    ):
        gates[name] = metric_gate(
            metric, outcomes(change), given, max_drop=_LEAST_GAIN, confidence=_CONFIDENCE
        )
    if not gates:
        return _untold("what it is fed are not pixels scaled in a usual way")
    return _worst(gates)


@contextmanager
def _opened(unfused: Unfused) -> Iterator[Session]:
    """The model whose inputs are still what the pipeline makes, and so can be changed."""
    with tempfile.TemporaryDirectory(prefix="edgeml-") as folder:
        path = Path(folder) / "unfused.onnx"
        path.write_bytes(unfused.model.data)
        with closing(open_session("onnxruntime", path)) as session:
            yield session


def _untold(why: str) -> GateResult:
    return GateResult(
        name="pre-processing",
        result=Verdict.UNDECIDED,
        reason=f"No other pre-processing could be tried: {why}.",
    )


def _worst(gates: Mapping[str, GateResult]) -> GateResult:
    """Of the gates that compare the given pre-processing with others the one that says most."""
    order = [Verdict.FAIL, Verdict.UNDECIDED, Verdict.PASS]
    name = min(gates, key=lambda n: (order.index(gates[n].result), -(gates[n].baseline or 0)))
    gate = gates[name]
    scores = (
        f"With {name} the float model's {gate.unit} would be {gate.baseline:.3f} instead of "
        f"{gate.value:.3f} on {gate.n} samples"
    )
    said = {
        Verdict.FAIL: f"{scores}: it seems to be fed otherwise than it was trained.",
        Verdict.UNDECIDED: f"{scores}, which is not shown to be better.",
        Verdict.PASS: f"No other usual pre-processing is better than the given one ({len(gates)} "
        f"tried). {scores}.",
    }
    return msgspec.structs.replace(gate, name="pre-processing", reason=said[gate.result])


def _samples(loaded: Loaded) -> Iterator[_Sample]:
    """Prepared image tensors with their labels, evenly spread over the data."""
    step = max(1, len(loaded.evaluation) // _MOST_SAMPLES)
    for index, sample in enumerate(loaded.evaluation):
        if index % step or index // step >= _MOST_SAMPLES:
            continue
        tensors = loaded.task.prepare(sample)
        if tensors is None:
            continue
        if _image_among(tensors) is None:
            return
        yield [tensor.copy() for tensor in tensors], loaded.evaluation.label(index)


def _image_among(tensors: Sequence[np.ndarray]) -> int | None:
    """The first tensor that is an image."""
    for index, tensor in enumerate(tensors):
        if tensor.dtype in {np.dtype("float32"), np.dtype("uint8")} and _channel_axis(tensor):
            return index
    return None


def _channel_axis(image: np.ndarray) -> int | None:
    if image.ndim != 4:  # noqa: PLR2004
        return None
    return next((axis for axis in (1, 3) if image.shape[axis] in {1, _COLOURS}), None)


def _changes(
    images: Sequence[np.ndarray], mean: np.ndarray, deviation: np.ndarray
) -> Iterator[tuple[str, Change]]:
    """The usual changes of images that were normalised by `mean` and `deviation` last."""
    axis = _channel_axis(images[0])
    assert axis is not None, "only images are changed"
    coloured = images[0].shape[axis] == _COLOURS
    shape = [1, -1, 1, 1] if axis == 1 else [1, 1, 1, -1]
    mean, deviation = mean.reshape(shape), deviation.reshape(shape)

    def scaled(factor: float, shift: float = 0.0) -> Change:
        def change(x: np.ndarray) -> np.ndarray:
            raw = (x * deviation + mean) * np.float32(factor) + np.float32(shift)
            return np.asarray((raw - mean) / deviation, np.float32)

        return change

    if coloured:
        yield "its channels in reverse order", lambda x: np.ascontiguousarray(np.flip(x, axis))
    if images[0].dtype == np.uint8:
        return
    raws = [image * deviation + mean for image in images]
    largest = max(float(np.abs(raw).max()) for raw in raws)
    if min(float(raw.min()) for raw in raws) < -_ROUNDING * largest:
        return
    unit = 255.0 if largest > _LARGEST_SHARE else 1.0
    if unit > 1:
        yield "its inputs divided by 255", scaled(1 / 255)
    else:
        yield "its inputs multiplied by 255", scaled(255)
    yield "its inputs scaled to -1 .. 1", scaled(2 / unit, -1)
    if coloured:
        usual = [_MEAN.reshape(shape), _DEVIATION.reshape(shape)]
        yield (
            "its inputs normalised as ImageNet's are",
            lambda x: ((x * deviation + mean) / np.float32(unit) - usual[0]) / usual[1],
        )
