"""Artifacts are compared on the same samples, and timed in turns."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.dataset import Dataset, open_dataset
from converters.evaluate import evaluate, latency_of, take_turns
from converters.model import load_model
from converters.task import DirectTask
from edgeml.errors import ModelError
from hardware.runtimes.interface import TensorSpec


class Simulated:
    """A session that answers what `answer` says and, when timed, takes `milliseconds`."""

    inputs = (TensorSpec(name="image", shape=("N", 3), dtype="float32"),)
    outputs = (TensorSpec(name="logits", shape=("N", 3), dtype="float32"),)

    def __init__(
        self,
        answer: Callable[[np.ndarray], Any] = lambda x: x,
        clock: "Clock | None" = None,
        milliseconds: float = 0,
        log: list[float] | None = None,
    ) -> None:
        self.answer = answer
        self.clock = clock
        self.milliseconds = milliseconds
        self.log = log

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        if self.clock:
            self.clock.now += self.milliseconds / 1000
        if self.log is not None:
            self.log.append(self.milliseconds)
        return [np.asarray(self.answer(inputs[0]), np.float32)]

    def placement(self) -> dict[str, int]:
        return {"simulated": 1}

    def close(self) -> None:
        """Nothing is open."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def task(fragile: Path) -> DirectTask:
    return DirectTask(load_model(fragile))


def one_hot(tmp_path: Path, labels: Sequence[int]) -> Dataset:
    x = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    np.savez(tmp_path / "d.npz", x=x, y=np.array(labels))
    return open_dataset(tmp_path / "d.npz")


def test_every_session_is_judged_on_every_sample(tmp_path: Path, task: DirectTask) -> None:
    done: list[int] = []
    answers = evaluate(
        {"float": Simulated(), "other": Simulated(lambda x: x * [1, 0, 1])},
        task,
        one_hot(tmp_path, [0, 1, 2, 1]),
        baseline="float",
        on_sample=done.append,
    )
    assert answers.correct["float"].tolist() == [True, True, True, False]
    assert answers.correct["other"].tolist() == [True, False, True, False]
    assert answers.found.all()
    assert done == [1, 2, 3, 4]


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, -1, 2, 0]])
def test_a_label_out_of_range_is_named(tmp_path: Path, task: DirectTask, labels: list[int]) -> None:
    with pytest.raises(ModelError, match="is out of range"):
        evaluate({"f": Simulated()}, task, one_hot(tmp_path, labels), baseline="f")


def test_data_without_labels_are_refused(tmp_path: Path, task: DirectTask) -> None:
    np.savez(tmp_path / "d.npz", x=np.eye(3, dtype=np.float32))
    with pytest.raises(ModelError, match="no labels"):
        evaluate({"f": Simulated()}, task, open_dataset(tmp_path / "d.npz"), baseline="f")


def test_a_float_model_that_answers_nan_is_refused(tmp_path: Path, task: DirectTask) -> None:
    data = one_hot(tmp_path, [0, 1, 2, 0])
    with pytest.raises(ModelError, match="NaN or infinite for evaluation sample 0"):
        evaluate({"f": Simulated(lambda x: x * np.nan)}, task, data, baseline="f")


@pytest.mark.parametrize("shape", [(1, 4, 3), (1, 1), (2, 3)])
def test_an_output_that_is_no_row_of_scores_is_refused(
    tmp_path: Path, task: DirectTask, shape: tuple[int, ...]
) -> None:
    data = one_hot(tmp_path, [0, 1, 2, 0])
    with pytest.raises(ModelError, match="no classifier"):
        evaluate({"f": Simulated(lambda _: np.zeros(shape))}, task, data, baseline="f")


class FindsNothing(DirectTask):
    def prepare(self, sample: np.ndarray) -> None:
        return None


def test_a_pipeline_that_never_finds_anything_is_an_error(tmp_path: Path, fragile: Path) -> None:
    task = FindsNothing(load_model(fragile))
    data = one_hot(tmp_path, [0, 1, 2, 0])
    with pytest.raises(ModelError, match="found nothing to infer in any of the 4 samples"):
        evaluate({"f": Simulated()}, task, data, baseline="f")


FEED = [[np.zeros((1, 3), np.float32)]]


def test_sessions_take_turns_and_the_one_that_starts_changes() -> None:
    log: list[float] = []
    clock = Clock()
    sessions = {"a": Simulated(clock=clock, milliseconds=1, log=log),
                "b": Simulated(clock=clock, milliseconds=2, log=log)}  # fmt: skip
    times = take_turns(sessions, FEED, seconds=0.1, clock=clock)
    assert {times["a"].size, times["b"].size} == {100}
    assert times["a"] == pytest.approx(1)
    assert times["b"] == pytest.approx(2)
    assert log[:8] == [1, 2, 2, 1, 1, 2, 2, 1]


def test_a_slow_model_is_timed_less_often_but_not_less_than_twenty_times() -> None:
    clock = Clock()
    times = take_turns(
        {"a": Simulated(clock=clock, milliseconds=5000)}, FEED, seconds=1, clock=clock
    )
    assert times["a"].size == 20


def test_a_quick_model_is_not_timed_for_ever() -> None:
    clock = Clock()
    times = take_turns({"a": Simulated(clock=clock)}, FEED, seconds=1, clock=clock, most_rounds=300)
    assert times["a"].size == 300


def test_percentiles_are_those_of_the_timings() -> None:
    latency = latency_of(np.arange(1, 101, dtype=float))
    assert (latency.p50_ms, latency.n) == (50.5, 100)
    assert latency.p95_ms == pytest.approx(95.05)
