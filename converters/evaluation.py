"""What a metric makes of a model's answers to every evaluation sample.

The samples are read and prepared here, one after the other; where there are several sessions,
these answer at the same time, and the outcomes keep the order of the samples.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import msgspec
import numpy as np

from converters.loading import Loaded
from edgeml.errors import ModelError

Tensors = Sequence[np.ndarray]
Answers = Callable[[Tensors], tuple[Tensors, Tensors]]
_AHEAD = 2  # samples a session that wait for it


class Judged(msgspec.Struct, frozen=True):
    """Of each evaluation sample, what the metric made of it, and whether it was inferred.

    A sample in which the pipeline finds nothing has the outcome of a wrong answer.
    """

    outcomes: tuple[Any, ...]
    found: tuple[bool, ...]


def evaluate(
    answers: Sequence[Answers],
    loaded: Loaded,
    *,
    is_baseline: bool,
    on_sample: Callable[[int], None] = lambda _: None,
) -> Judged:
    """Let a model answer every evaluation sample, and a metric judge.

    Args:
        answers: each answers a sample's tensors with the model's outputs and with what the
            metric compares them with; several do so at the same time.
        loaded: task, metric and evaluation data.
        is_baseline: whether it is the float model itself, whose outputs must be finite.
        on_sample: called with the number of samples done.

    Raises:
        ModelError: the float model's outputs are not finite, the labels do not fit, or the
            pipeline found nothing in any sample.
    """
    metric, dataset = loaded.metric, loaded.evaluation
    outcomes: list[Any] = []
    found: list[bool] = []
    for index, answer in enumerate(_in_order(answers, _prepared(loaded, len(answers) > 1))):
        on_sample(index + 1)
        found.append(answer is not None)
        if answer is None:
            outcomes.append(metric.missed(dataset.label(index)))
            continue
        outputs, beside = answer
        if is_baseline:
            _check_finite(outputs, index, dataset.path)
        if sum(found) == 1:
            loaded.task.check_outputs(outputs)
            metric.check(dataset, outputs)
        outcomes.append(metric.outcome(outputs, dataset.label(index), beside))
    if not any(found):
        raise ModelError(
            f"The pipeline found nothing to infer in any of the {len(dataset)} samples in "
            f"{dataset.path}.",
            fix="Look at its locate step, and whether the samples are region images.",
        )
    return Judged(tuple(outcomes), tuple(found))


def _prepared(loaded: Loaded, keeps: bool) -> Iterator[Tensors | None]:
    """Each sample as the model takes it; one that `keeps` outlives the next."""
    for sample in loaded.evaluation:
        tensors = loaded.task.prepare(sample)
        yield [tensor.copy() for tensor in tensors] if keeps and tensors is not None else tensors


def _in_order(
    answers: Sequence[Answers], samples: Iterator[Tensors | None]
) -> Iterator[tuple[Tensors, Tensors] | None]:
    """The answer to each sample, None for None, in the order of the samples."""
    if len(answers) == 1:
        for tensors in samples:
            yield None if tensors is None else answers[0](tensors)
        return
    idle: SimpleQueue[Answers] = SimpleQueue()
    for answer in answers:
        idle.put(answer)

    def ask(tensors: Tensors | None) -> tuple[Tensors, Tensors] | None:
        if tensors is None:
            return None
        mine = idle.get()
        try:
            return mine(tensors)
        finally:
            idle.put(mine)

    with ThreadPoolExecutor(len(answers)) as pool:
        waiting: deque[Future[tuple[Tensors, Tensors] | None]] = deque()
        try:
            for tensors in samples:
                waiting.append(pool.submit(ask, tensors))
                if len(waiting) > _AHEAD * len(answers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _check_finite(outputs: Sequence[np.ndarray], index: int, path: Any) -> None:
    if not all(np.isfinite(o).all() for o in outputs if o.dtype.kind == "f"):
        raise ModelError(
            f"The float model's output is NaN or infinite for evaluation sample {index} in {path}.",
            why="Such a model cannot be compared with.",
        )
