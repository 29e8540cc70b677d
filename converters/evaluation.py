"""What a metric makes of a model's answers to every evaluation sample.

The samples are read and prepared here, one after the other, while sessions elsewhere answer those
before them in blocks; several answer at the same time. The outcomes keep the samples' order.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import msgspec
import numpy as np

from converters.loading import Loaded
from edgeml.errors import ModelError

Tensors = Sequence[np.ndarray]
Answers = Callable[[Sequence[Tensors]], Sequence[tuple[Tensors, Tensors]]]
_AHEAD = 2  # blocks a session that wait for it
_BLOCK = 64  # samples at most that are sent at once: small ones would cost more to send than to run
_BLOCK_BYTES = 1 << 18


class UnfitError(ModelError):
    """The samples, their labels or the metric do not fit the model; no runtime is to blame."""


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
        answers: each answers a block of samples' tensors, for each with the model's outputs and
            with what the metric compares them with; several do so at the same time.
        loaded: task, metric and evaluation data.
        is_baseline: whether it is the float model itself, whose outputs must be finite.
        on_sample: called with the number of samples done.

    Raises:
        UnfitError: the float model's outputs are not finite, the labels do not fit, or the
            pipeline found nothing in any sample.
        ModelError: the model failed on a sample.
    """
    metric, dataset = loaded.metric, loaded.evaluation
    outcomes: list[Any] = []
    found: list[bool] = []
    for index, answer in enumerate(_in_order(answers, _prepared(loaded))):
        on_sample(index + 1)
        found.append(answer is not None)
        label = dataset.label(index)
        with _no_runtime_to_blame():
            if answer is None:
                outcomes.append(metric.missed(label))
                continue
            outputs, beside = answer
            if is_baseline:
                _check_finite(outputs, index, dataset.path)
            if sum(found) == 1:
                loaded.task.check_outputs(outputs)
                metric.check(dataset, outputs)
            outcomes.append(metric.outcome(outputs, label, beside))
    if not any(found):
        raise UnfitError(
            f"The pipeline found nothing to infer in any of the {len(dataset)} samples in "
            f"{dataset.path}.",
            fix="Look at its locate step, and whether the samples are region images.",
        )
    return Judged(tuple(outcomes), tuple(found))


def _prepared(loaded: Loaded) -> Iterator[Tensors | None]:
    """Each sample as the model takes it; it outlives the next."""
    for sample in loaded.evaluation:
        with _no_runtime_to_blame():
            tensors = loaded.task.prepare(sample)
        yield None if tensors is None else [tensor.copy() for tensor in tensors]


def _blocks(samples: Iterator[Tensors | None], most: int) -> Iterator[list[Tensors | None]]:
    """Samples a few at a time, so many as are quickly sent."""
    block: list[Tensors | None] = []
    size = 0
    for tensors in samples:
        block.append(tensors)
        size += sum(tensor.nbytes for tensor in tensors or ())
        if len(block) >= most or size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _in_order(
    answers: Sequence[Answers], samples: Iterator[Tensors | None]
) -> Iterator[tuple[Tensors, Tensors] | None]:
    """The answer to each sample, None for None, in the order of the samples."""
    idle: SimpleQueue[Answers] = SimpleQueue()
    for answer in answers:
        idle.put(answer)

    def ask(block: list[Tensors | None]) -> list[tuple[Tensors, Tensors] | None]:
        mine = idle.get()
        try:
            given = iter(mine([tensors for tensors in block if tensors is not None]))
        finally:
            idle.put(mine)
        return [None if tensors is None else next(given) for tensors in block]

    most = _BLOCK if len(answers) == 1 else 1
    with ThreadPoolExecutor(len(answers)) as pool:
        waiting: deque[Future[list[tuple[Tensors, Tensors] | None]]] = deque()
        try:
            for block in _blocks(samples, most):
                waiting.append(pool.submit(ask, block))
                if len(waiting) > _AHEAD * len(answers):
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _no_runtime_to_blame() -> Iterator[None]:
    """Tell what is wrong with samples, labels and metric from what a runtime cannot do."""
    try:
        yield
    except ModelError as error:
        raise UnfitError(error.what, why=error.why, fix=error.fix) from error


def _check_finite(outputs: Sequence[np.ndarray], index: int, path: Any) -> None:
    if not all(np.isfinite(o).all() for o in outputs if o.dtype.kind == "f"):
        raise ModelError(
            f"The float model's output is NaN or infinite for evaluation sample {index} in {path}.",
            why="Such a model cannot be compared with.",
        )
