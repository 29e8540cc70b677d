"""How often a search lets in a file that loses just too much, simulated by its own rules.

Every candidate here truly loses exactly what may be lost, so that each pass is an error.
"""

import functools
import math

import numpy as np
import pytest
from scipy import stats

from cloud_sync.evidence import Verdict
from converters.paired import Discordance, drop_is_below
from converters.search import Facts, Step, Tried, next_step

SAMPLES, MAX_DROP, CONFIDENCE, DISAGREE = 800, 0.01, 0.95, 0.04
LOST, GAINED = (DISAGREE + MAX_DROP) / 2, (DISAGREE - MAX_DROP) / 2
ERROR = 1 - CONFIDENCE


@functools.cache
def most_lost(gained: int, confidence: float) -> int:
    """How many samples may be lost beside those gained, so that the gate still passes; -1: none."""
    low, high = -1, SAMPLES - gained
    while low < high:
        middle = (low + high + 1) // 2
        seen = Discordance(n=SAMPLES, lost=middle, gained=gained)
        if drop_is_below(seen, MAX_DROP, confidence):
            low = middle
        else:
            high = middle - 1
    return low


def passes(rng: np.random.Generator, confidence: float) -> bool:
    lost, gained, _ = rng.multinomial(SAMPLES, [LOST, GAINED, 1 - LOST - GAINED])
    return bool(lost <= most_lost(int(gained), confidence))


FACTS = Facts(
    flavours=("u8s8", "s8s8"),
    convolutions=50,
    matrix_share=0.6,
    samples=SAMPLES,
    max_drop=MAX_DROP,
    confidence=CONFIDENCE,
)


def search(
    rng: np.random.Generator, runtimes: int, *, alike: bool = False
) -> tuple[list[bool], list[float]]:
    """Which runtimes let a file in, and at which levels files were judged.

    Candidates lose samples of their own, or all of them the very same where they are `alike`.
    """
    seed = int(rng.integers(1 << 60))
    tried: list[Tried] = []
    levels: list[float] = []
    while (step := next_step(FACTS, tried)) is not None:
        accuracy = None
        if step.confidence is not None:
            levels.append(step.confidence)
            draws = np.random.default_rng(seed) if alike else rng
            passed = [passes(draws, step.confidence) for _ in range(runtimes)]
            if any(passed):
                return passed, levels
            accuracy = Verdict.UNDECIDED
        tried.append(Tried(step=step, fast=True, fidelity=rng.random(), accuracy=accuracy))
    return [False] * runtimes, levels


@pytest.fixture(scope="module")
def longest() -> list[float]:
    """The levels of a search in which nothing passes."""
    rng = np.random.default_rng(0)
    searches = (search(rng, 1) for _ in range(100))
    return next(levels for passed, levels in searches if not any(passed))


def test_the_levels_of_all_judgements_add_up_to_less_than_twice_the_error(
    longest: list[float],
) -> None:
    assert len(longest) >= 8
    assert longest[0] == CONFIDENCE
    assert sum(1 - level for level in longest) < 2 * ERROR


def test_the_exact_errors_of_all_judgements_add_up_to_less_than_twice_the_error(
    longest: list[float],
) -> None:
    gained = np.arange(60)
    share = stats.binom.pmf(gained, SAMPLES, GAINED)
    assert share.sum() > 1 - 1e-6
    errors = []
    for level in longest:
        most = np.array([most_lost(int(g), level) for g in gained])
        below = stats.binom.cdf(most, SAMPLES - gained, LOST / (1 - GAINED))
        errors.append(float(share @ below))
        assert errors[-1] <= 1 - level
    assert errors[0] < sum(errors) < 2 * ERROR


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize(("runtimes", "most"), [(1, 2 * ERROR), (3, 3 * 2 * ERROR)])
def test_a_search_errs_at_most_twice_as_often_as_a_test_on_each_runtime(
    runtimes: int, most: float, alike: bool
) -> None:
    rng, count = np.random.default_rng(1), 1500
    wrong = sum(any(search(rng, runtimes, alike=alike)[0]) for _ in range(count)) / count
    noise = 3 * math.sqrt(most * (1 - most) / count)
    # Of independent runtimes each brings errors of its own: nothing smaller can be promised.
    assert 0.6 * ERROR * runtimes - noise < wrong < most + noise


@pytest.mark.parametrize("seed", range(5))
def test_which_candidate_is_judged_next_does_not_depend_on_how_the_last_one_failed(
    seed: int,
) -> None:
    """So the levels are those of tests that were fixed before the evaluation data were seen."""

    def judged(verdicts: np.random.Generator) -> list[Step]:
        fidelity = np.random.default_rng(seed)
        tried: list[Tried] = []
        while (step := next_step(FACTS, tried)) is not None:
            verdict = verdicts.choice([Verdict.FAIL, Verdict.UNDECIDED])
            accuracy = None if step.confidence is None else Verdict(verdict)
            tried.append(Tried(step=step, fast=True, fidelity=fidelity.random(), accuracy=accuracy))
        return [t.step for t in tried]

    once, again = (judged(np.random.default_rng(n)) for n in (100, 101))
    assert once == again
    assert sum(step.confidence is not None for step in once) >= 8
