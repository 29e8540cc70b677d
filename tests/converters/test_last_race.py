"""When the last race's times decide, and when another race has to agree."""

import numpy as np
import pytest

from cloud_sync.evidence import GateResult, Verdict
from converters.gates import speed_gate
from converters.last_race import agreed


def gate(ratio: float) -> GateResult:
    """The gate of a race that showed this ratio in each of 100 rounds, where 1.1 is asked for."""
    ones = np.ones(100)
    return speed_gate(ratio * ones, ones, min_speedup=1.1, confidence=0.95)


@pytest.mark.parametrize(("ratio", "quick"), [(1.5, None), (1.5, 1.2), (0.99, 1.0)])
def test_what_is_clear_and_was_so_in_the_quick_race_needs_no_other(
    ratio: float, quick: float | None
) -> None:
    assert agreed([gate(ratio)], quick=quick) == gate(ratio)


@pytest.mark.parametrize(
    ("ratio", "quick"), [(1.15, 1.5), (1.05, 0.5), (0.5, None), (0.5, 1.2), (1.5, 1.0)]
)
def test_what_is_narrow_or_was_otherwise_in_the_quick_race_waits_for_another_that_agrees(
    ratio: float, quick: float | None
) -> None:
    first = agreed([gate(ratio)], quick=quick)
    assert first.result is Verdict.UNDECIDED
    assert "one race alone does not show it" in first.reason
    both = agreed([gate(ratio), gate(ratio + 0.01)], quick=quick)
    assert both.result is gate(ratio).result
    assert (both.low, both.high) == pytest.approx((ratio, ratio + 0.01))
    assert both.n == 200


def test_races_that_disagree_decide_nothing_until_two_in_a_row_agree() -> None:
    assert agreed([gate(1.5), gate(1.0)]).result is Verdict.UNDECIDED
    assert agreed([gate(0.8), gate(1.5)]).result is Verdict.UNDECIDED
    assert agreed([gate(0.8), gate(1.5), gate(1.4)]).result is Verdict.PASS


def test_without_a_bound_every_race_decides() -> None:
    ones = np.ones(100)
    anything = speed_gate(ones, 2 * ones, min_speedup=0.0, confidence=0.95)
    assert agreed([anything]).result is Verdict.PASS
