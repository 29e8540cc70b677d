"""When the last race's times decide, and when another race has to agree."""

import numpy as np
import pytest

from cloud_sync.evidence import GateResult, Verdict
from converters.gates import speed_gate
from converters.last_race import confirmed


def gate(ratio: float) -> GateResult:
    """The gate of a race that showed this ratio in each of 100 rounds, where 1.1 is asked for."""
    ones = np.ones(100)
    return speed_gate(ratio * ones, ones, min_speedup=1.1, confidence=0.95)


@pytest.mark.parametrize("ratio", [0.9, 1.5])
def test_what_one_race_shows_clearly_needs_no_other(ratio: float) -> None:
    assert confirmed(gate(ratio), None) == gate(ratio)


def test_a_narrow_pass_waits_for_another_race_that_agrees() -> None:
    first = confirmed(gate(1.15), None)
    assert first.result is Verdict.UNDECIDED
    assert "too narrowly for one race" in first.reason
    assert confirmed(gate(1.14), first).result is Verdict.PASS


def test_a_narrow_pass_after_a_race_that_disagreed_decides_nothing() -> None:
    assert confirmed(gate(1.15), gate(1.0)).result is Verdict.UNDECIDED


def test_without_a_bound_every_race_decides() -> None:
    ones = np.ones(100)
    anything = speed_gate(ones, 2 * ones, min_speedup=0.0, confidence=0.95)
    assert confirmed(anything, None).result is Verdict.PASS
