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


def test_a_clear_pass_needs_no_other_race() -> None:
    assert agreed([gate(1.5)]) == gate(1.5)


@pytest.mark.parametrize("ratio", [0.5, 1.15])
def test_a_narrow_pass_and_a_failure_wait_for_another_race_that_agrees(ratio: float) -> None:
    first = agreed([gate(ratio)])
    assert first.result is Verdict.UNDECIDED
    assert "one race alone does not show it" in first.reason
    both = agreed([gate(ratio), gate(ratio + 0.01)])
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
