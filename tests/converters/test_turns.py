"""When a race may end: after its time, or as soon as more rounds could tell nothing new."""

from collections.abc import Iterator

import numpy as np
import pytest

from converters.turns import on_one_side, take_turns


class Runner:
    """A session whose runs take as long as a list says, on a clock of its own."""

    def __init__(self, milliseconds: float, clock: list[float]) -> None:
        self.milliseconds = milliseconds
        self.clock = clock

    def time(self, feed: int, runs: int) -> tuple[float, ...]:
        self.clock[0] += runs * self.milliseconds / 1000
        return (self.milliseconds,) * runs


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


def rounds_of(clock: list[float], **sessions: float) -> Iterator[tuple[str, int]]:
    runners = {name: Runner(ms, clock) for name, ms in sessions.items()}
    times = take_turns(runners, 1, seconds=1.0, least_rounds=40, clock=lambda: clock[0])  # type: ignore[arg-type]
    return iter((name, len(taken)) for name, taken in times.items())


def test_each_session_has_a_turn_in_every_round(clock: list[float]) -> None:
    assert len({count for _, count in rounds_of(clock, a=1.0, b=2.0, c=0.1)}) == 1


def test_a_race_lasts_as_long_as_it_may(clock: list[float]) -> None:
    list(rounds_of(clock, a=1.0, b=1.0))
    assert 1.0 < clock[0] < 1.1


def test_slow_models_run_fewer_rounds_but_never_below_twelve(clock: list[float]) -> None:
    assert dict(rounds_of(clock, a=1000.0)) == {"a": 12}
    assert dict(rounds_of([0.0], a=100.0)) == {"a": 40}


def test_a_race_that_has_settled_ends_at_the_next_look(clock: list[float]) -> None:
    looks: list[int] = []

    def settled(times: object) -> bool:
        looks.append(len(times["a"]))  # type: ignore[index]
        return len(looks) == 3

    times = take_turns(
        {"a": Runner(1.0, clock)},  # type: ignore[dict-item]
        1,
        seconds=9.0,
        least_rounds=40,
        settled=settled,
        clock=lambda: clock[0],
    )
    assert looks == [20, 40, 80]
    assert len(times["a"]) == 80


@pytest.mark.parametrize(
    ("ratios", "shown"),
    [
        ([1.2] * 20, True),
        ([0.8] * 20, True),
        ([1.2] * 18 + [0.8] * 2, True),
        ([1.2] * 15 + [0.8] * 5, False),
        ([1.2] * 8, False),
        ([1.05] * 40, False),
        ([], False),
    ],
)
def test_few_ratios_on_the_other_side_settle_it(ratios: list[float], shown: bool) -> None:
    assert on_one_side(ratios, 1.05) is shown


def test_ratios_around_the_bound_settle_nothing_more_often_than_said() -> None:
    rng = np.random.default_rng(3)
    wrong = sum(on_one_side(rng.normal(1.05, 0.1, 80).tolist(), 1.05) for _ in range(5000))
    assert wrong < 5000 * 0.003
