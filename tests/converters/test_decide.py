"""A candidate is deployed only on a pass, or on a doubt that a person accepted."""

from typing import Any

import pytest

from cloud_sync.evidence import Accuracy, GateResult, Verdict
from converters.decide import choose, kept_because, warnings_about


def gate(name: str, result: Verdict) -> GateResult:
    return GateResult(name=name, result=result, reason=f"{name} numbers.")


@pytest.mark.parametrize("accuracy", Verdict)
@pytest.mark.parametrize("speed", Verdict)
@pytest.mark.parametrize("size", Verdict)
@pytest.mark.parametrize("accept", ["", "pilot on one line"])
def test_the_whole_table_of_decisions(
    accuracy: Verdict, speed: Verdict, size: Verdict, accept: str
) -> None:
    gates = [gate("accuracy", accuracy), gate("speedup", speed), gate("size", size)]
    choice = choose(gates, accept=accept)
    verdicts = {accuracy, speed, size}
    failed, doubted = Verdict.FAIL in verdicts, Verdict.UNDECIDED in verdicts
    assert choice.deployable == (not failed and (not doubted or bool(accept)))
    assert choice.undecided == (not failed and doubted and not accept)
    assert bool(choice.remedy) == choice.undecided
    assert "numbers." in choice.reason


@pytest.mark.parametrize("conversion", Verdict)
def test_float_is_an_answer_wherever_it_is_not_shown_to_lose(conversion: Verdict) -> None:
    choice = choose([gate("conversion", conversion)])
    assert choice.deployable == (conversion is not Verdict.FAIL)
    assert not choice.undecided


@pytest.mark.parametrize(
    ("doubted", "words"),
    [
        ({"name": "accuracy", "n": 60, "n_needed": 1152}, "Evaluate on about 1,152 samples, or"),
        ({"name": "speedup"}, "Convert on such a machine, or"),
        ({"name": "speedup", "value": 1.1, "n": 40}, "while this machine does nothing else, or"),
    ],
)
def test_what_is_undecided_says_what_would_decide(doubted: dict[str, Any], words: str) -> None:
    choice = choose([GateResult(result=Verdict.UNDECIDED, **doubted)])
    assert words in choice.remedy
    assert '--accept-undecided "REASON"' in choice.remedy


def test_the_reason_of_an_accepted_doubt_is_kept() -> None:
    gates = [gate("accuracy", Verdict.UNDECIDED), gate("speedup", Verdict.PASS)]
    choice = choose(gates, accept="a pilot")
    assert choice.accepted == "a pilot"


def test_a_reason_is_not_recorded_where_nothing_had_to_be_accepted() -> None:
    choice = choose([gate("accuracy", Verdict.PASS), gate("speedup", Verdict.PASS)], accept="x")
    assert choice.accepted == ""


def test_why_float_was_kept_is_said_once_for_targets_that_share_the_reason() -> None:
    served = {"a": [("int8", "one"), ("float32", "one")]}
    assert kept_because({}, {}) is None
    assert kept_because({"a": "too slow.", "b": "too slow."}, {}) == "a, b: too slow."
    assert kept_because({"a": "too slow.", "b": "lost."}, {}) == "a: too slow. b: lost."
    assert kept_because({"a": "too slow.", "b": "lost."}, served) == "b: lost."
    assert kept_because({"a": "too slow."}, served) is None
    assert kept_because({}, {"a": [("float32", "one")]}) is None


def test_float_that_is_faster_on_another_runtime_than_int8_is_said() -> None:
    served = {"a": [("float32", "one"), ("float32", "two"), ("int8", "two")]}
    said = "a: float32 on one is faster than int8 on two, which is in the release after it."
    assert kept_because({"a": "too slow."}, served) == said


@pytest.mark.parametrize(("low", "warns"), [(0.05, True), (0.1, True), (0.11, False)])
def test_a_float_model_no_better_than_guessing_is_warned_about(low: float, warns: bool) -> None:
    accuracy = Accuracy(metric="top1", value=0.12, low=low, high=0.2, confidence=0.95, n=500)
    assert bool(warnings_about(accuracy, 0.1)) == warns
