"""Execute artifacts on the evaluation data: answers, outputs and interleaved timings.

Every artifact sees the same prepared tensors in the same order, so that the accuracy gate can
compare them sample by sample. For latency the artifacts take turns, and the one that starts a
round changes from round to round, so that whatever else the machine does falls on all of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from cloud_sync.evidence import Latency
from converters.dataset import Dataset
from converters.task import NOTHING, Task, check_labels, class_count
from edgeml.errors import ModelError
from hardware.runtimes.interface import Session

_WARM_UP_ROUNDS = 10


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """By session and sample, whether the answer was right; bool [samples].

    `found` tells in which samples the pipeline found something to infer; the others count as
    wrong answers.
    """

    correct: dict[str, np.ndarray]
    found: np.ndarray


def evaluate(
    sessions: Mapping[str, Session],
    task: Task,
    dataset: Dataset,
    *,
    baseline: str,
    on_sample: Callable[[int], None] = lambda _: None,
) -> Answers:
    """Run every session on every sample.

    Args:
        sessions: by name; `baseline` names the float model's.
        task: prepares samples and reads outputs.
        dataset: labelled evaluation data.
        baseline: the session whose outputs must be finite and set the number of classes.
        on_sample: called with the number of samples done.

    Raises:
        ModelError: labels are missing or out of range, the float model is no classifier or
            its outputs are not finite, or the pipeline found nothing in any sample.
    """
    labels: np.ndarray | None = None
    correct = {name: np.zeros(len(dataset), bool) for name in sessions}
    found = np.zeros(len(dataset), bool)
    for index, sample in enumerate(dataset):
        tensors = task.prepare(sample)
        on_sample(index + 1)
        if tensors is None:
            continue
        found[index] = True
        for name, session in sessions.items():
            outputs = session.run(tensors)
            if name == baseline:
                if not all(np.isfinite(output).all() for output in outputs):
                    raise ModelError(
                        f"The float model's output is NaN or infinite for evaluation sample "
                        f"{index} in {dataset.path}.",
                        why="Such a model cannot be compared with.",
                    )
                if labels is None:
                    classes = class_count(outputs, session.outputs, dataset.path)
                    labels = check_labels(dataset, classes)
            assert labels is not None
            answer = task.answer(outputs)
            correct[name][index] = answer != NOTHING and answer == labels[index]
    if labels is None:
        raise ModelError(
            f"The pipeline found nothing to infer in any of the {len(dataset)} samples in "
            f"{dataset.path}.",
            fix="Look at its locate step, and whether the samples are region images.",
        )
    return Answers(correct=correct, found=found)


def take_turns(
    sessions: Mapping[str, Session],
    feeds: Sequence[Sequence[np.ndarray]],
    *,
    seconds: float,
    least_rounds: int = 100,
    most_rounds: int = 5000,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Time single inferences in turns; returns milliseconds by name, one a round.

    Ends after `seconds`, though not before `least_rounds` (which a slow model may cut short
    at four times `seconds`, never below 20) nor after `most_rounds`.
    """
    names = list(sessions)
    times: dict[str, list[float]] = {name: [] for name in names}
    begun = clock()
    rounds = -min(_WARM_UP_ROUNDS, most_rounds)
    while True:
        feed = feeds[rounds % len(feeds)]
        turn = rounds % len(names)
        for name in names[turn:] + names[:turn]:
            start = clock()
            sessions[name].run(feed)
            taken = clock() - start
            if rounds >= 0:
                times[name].append(1000 * taken)
        rounds += 1
        spent = clock() - begun
        enough = spent >= seconds and rounds >= least_rounds
        too_slow = spent >= 4 * seconds and rounds >= 20  # noqa: PLR2004
        if enough or too_slow or rounds >= most_rounds:
            return {name: np.array(values) for name, values in times.items()}


def latency_of(milliseconds: np.ndarray) -> Latency:
    """Percentiles of timings."""
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    return Latency(
        p50_ms=float(p50), p95_ms=float(p95), p99_ms=float(p99), n=int(milliseconds.size)
    )
