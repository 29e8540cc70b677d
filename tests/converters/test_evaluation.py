"""Judging a model's answers: in the samples' order, however many sessions answer."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from converters.evaluation import Answers, evaluate
from converters.loading import Loaded, load
from converters.progress import Silent
from converters.request import Request
from edgeml.errors import ModelError

Tensors = Sequence[np.ndarray]


@pytest.fixture
def loaded(convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path) -> Loaded:
    request = Request(
        model=convnet,
        calibration=str(quarters_data[0]),
        evaluation=str(quarters_data[1]),
        name="toy",
        version="1",
        out=tmp_path / "out",
        targets=("cpu",),
    )
    return load(request, Silent())


def answer(delay: Callable[[], float] = lambda: 0.0) -> Answers:
    """A model that sees which quarter is bright, and may take its time."""

    def see(tensors: Tensors) -> tuple[Tensors, Tensors]:
        image = tensors[0][0, 0]
        time.sleep(delay())
        half = len(image) // 2
        sums = [image[r : r + half, c : c + half].sum() for r in (0, half) for c in (0, half)]
        outputs = [np.array([sums], np.float32)]
        return outputs, outputs

    return lambda feeds: [see(tensors) for tensors in feeds]


def test_sessions_that_answer_at_the_same_time_keep_the_order(loaded: Loaded) -> None:
    rng = np.random.default_rng(0)
    uneven = [answer(lambda: rng.uniform(0, 0.004)) for _ in range(4)]
    alone = evaluate([answer()], loaded, is_baseline=True)
    assert evaluate(uneven, loaded, is_baseline=True) == alone
    assert all(alone.outcomes)


def test_each_session_is_asked_by_one_thread_at_a_time(loaded: Loaded) -> None:
    def careful() -> Answers:
        lock, see = threading.Lock(), answer(lambda: 0.0005)

        def ask(feeds: Sequence[Tensors]) -> Sequence[tuple[Tensors, Tensors]]:
            assert lock.acquire(blocking=False), "asked while it answers"
            try:
                return see(feeds)
            finally:
                lock.release()

        return ask

    judged = evaluate([careful(), careful(), careful()], loaded, is_baseline=False)
    assert len(judged.outcomes) == len(loaded.evaluation)


@pytest.mark.parametrize("count", [1, 3])
def test_what_a_session_raises_ends_the_evaluation(loaded: Loaded, count: int) -> None:
    asked: list[int] = []

    def fails(_: Sequence[Tensors]) -> Sequence[tuple[Tensors, Tensors]]:
        asked.append(1)
        raise ModelError("The runtime died.")

    with pytest.raises(ModelError, match="died"):
        evaluate([fails] * count, loaded, is_baseline=False)
    assert len(asked) < 20


def test_a_float_model_that_answers_nan_is_refused_and_named(loaded: Loaded) -> None:
    def lost(feeds: Sequence[Tensors]) -> Sequence[tuple[Tensors, Tensors]]:
        outputs = [np.full((1, 4), np.nan, np.float32)]
        return [(outputs, outputs) for _ in feeds]

    with pytest.raises(ModelError, match="NaN or infinite for evaluation sample 0"):
        evaluate([lost], loaded, is_baseline=True)
