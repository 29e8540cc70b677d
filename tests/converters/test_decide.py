"""An int8 candidate is deployed only on a pass, or on a doubt that a person accepted."""

import pytest

from cloud_sync.evidence import Accuracy, GateResult, Verdict
from converters.decide import choose, kept_because, warnings_about


def gate(name: str, result: Verdict) -> GateResult:
    return GateResult(name=name, result=result, reason=f"{name} numbers.")


@pytest.mark.parametrize("accuracy", Verdict)
@pytest.mark.parametrize("speed", Verdict)
@pytest.mark.parametrize("accept", ["", "pilot on one line"])
def test_the_whole_table_of_decisions(accuracy: Verdict, speed: Verdict, accept: str) -> None:
    choice = choose(gate("accuracy", accuracy), gate("speedup", speed), accept=accept)
    fast = speed is Verdict.PASS
    accurate = accuracy is Verdict.PASS or (accuracy is Verdict.UNDECIDED and bool(accept))
    fast_enough = fast or (speed is Verdict.UNDECIDED and bool(accept))
    assert choice.deployable == (fast_enough and accurate)
    assert choice.undecided == (fast and accuracy is Verdict.UNDECIDED and not accept)
    assert "numbers." in choice.reason


def test_the_reason_of_an_accepted_doubt_is_kept() -> None:
    choice = choose(
        gate("accuracy", Verdict.UNDECIDED), gate("speedup", Verdict.PASS), accept="a pilot"
    )
    assert choice.accepted == "a pilot"


def test_a_reason_is_not_recorded_where_nothing_had_to_be_accepted() -> None:
    choice = choose(gate("accuracy", Verdict.PASS), gate("speedup", Verdict.PASS), accept="x")
    assert choice.accepted == ""


def test_why_float_was_kept_is_said_once_for_targets_that_share_the_reason() -> None:
    assert kept_because({}, set()) is None
    assert kept_because({"a": "too slow.", "b": "too slow."}, set()) == "a, b: too slow."
    assert kept_because({"a": "too slow.", "b": "lost."}, set()) == "a: too slow. b: lost."
    assert kept_because({"a": "too slow.", "b": "lost."}, {"a"}) == "b: lost."
    assert kept_because({"a": "too slow."}, {"a"}) is None


@pytest.mark.parametrize(("low", "warns"), [(0.05, True), (0.1, True), (0.11, False)])
def test_a_float_model_no_better_than_guessing_is_warned_about(low: float, warns: bool) -> None:
    accuracy = Accuracy(metric="top1", value=0.12, low=low, high=0.2, confidence=0.95, n=500)
    assert bool(warnings_about(accuracy, 0.1)) == warns
