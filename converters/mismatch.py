"""Is the model fed as it was trained? Other usual pre-processings are tried beside the given one.

A wrong order of channels or a wrong scale costs float and int8 alike, so that no comparison of
the two finds it. Here the float model answers the same samples with its inputs changed in the
usual ways; where one of them is shown to score better, that is said, with the numbers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from cloud_sync.evidence import Verdict
from converters.gates import metric_gate
from converters.loading import Loaded
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


class Mismatch(msgspec.Struct, frozen=True):
    """A pre-processing under which the float model is shown to score better."""

    change: str
    metric: str
    score: float
    given: float
    n: int

    def __str__(self) -> str:
        return (
            f"With {self.change} the float model's {self.metric} would be {self.score:.3f} "
            f"instead of {self.given:.3f} on {self.n} samples: it seems to be fed otherwise "
            "than it was trained."
        )


def find_mismatch(session: Session, loaded: Loaded) -> Mismatch | None:
    """Try the usual changes on some evaluation samples; the best that is shown to be better.

    Args:
        session: the float model.
        loaded: task, metric and evaluation data; only float images [1, C, H, W] or
            [1, H, W, C] are changed, and only metrics that know what is right can tell.
    """
    if loaded.metric.needs_reference or loaded.metric.needs_inputs:
        return None
    metric, samples = loaded.metric, list(_samples(loaded))
    if not samples:
        return None
    begun = time.perf_counter()
    session.run(samples[0][0])
    affordable = _SECONDS / _PASSES / (time.perf_counter() - begun)
    samples = samples[:: max(1, round(len(samples) / max(affordable, _LEAST_SAMPLES)))]

    def outcomes(change: Change | None) -> list[Any]:
        made = []
        for (image, *others), label in samples:
            outputs = session.run([change(image) if change else image, *others])
            made.append(metric.outcome(outputs, label, outputs))
        return made

    given = outcomes(None)
    best: Mismatch | None = None
    mean, deviation = getattr(loaded.task, "normalisation", ((0.0,), (1.0,)))
    images = [image for (image, *_), _ in samples]
    for name, change in _changes(
        images, np.asarray(mean, np.float32), np.asarray(deviation, np.float32)
    ):
        changed = outcomes(change)
        gate = metric_gate(metric, changed, given, max_drop=_LEAST_GAIN, confidence=_CONFIDENCE)
        score = metric.score(changed)
        if gate.result is Verdict.FAIL and (best is None or score > best.score):
            best = Mismatch(name, metric.name, score, metric.score(given), len(samples))
    return best


def _samples(loaded: Loaded) -> Iterator[_Sample]:
    """Prepared image tensors with their labels, evenly spread over the data."""
    step = max(1, len(loaded.evaluation) // _MOST_SAMPLES)
    for index, sample in enumerate(loaded.evaluation):
        if index % step or index // step >= _MOST_SAMPLES:
            continue
        tensors = loaded.task.prepare(sample)
        if tensors is None:
            continue
        if _channel_axis(tensors[0]) is None or tensors[0].dtype != np.float32:
            return
        yield [tensor.copy() for tensor in tensors], loaded.evaluation.label(index)


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
