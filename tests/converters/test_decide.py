"""A candidate is deployed only on a pass, or on a doubt that a person accepted."""

from typing import Any

import pytest

from cloud_sync.evidence import Accuracy, GateResult, Verdict
from converters.decide import choose, in_brief, kept_because, warnings_about


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


def judged(result: Verdict) -> GateResult:
    return GateResult(
        name="accuracy",
        result=result,
        baseline=0.9,
        value=0.885,
        bound=0.89,
        low=0.87,
        high=0.894,
        confidence=0.95,
        n=400,
        reason="Much more is known.",
    )


def raced(result: Verdict, **bounds: float) -> GateResult:
    speed: dict[str, Any] = {"baseline": 1.0, "value": 0.96, "bound": 1.1, **bounds}
    return GateResult(name="speedup", result=result, reason="More.", **speed)


FAILS, DOUBT, PASSES = Verdict.FAIL, Verdict.UNDECIDED, Verdict.PASS


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        (
            [judged(FAILS), raced(DOUBT)],
            (
                "quantization loses too much accuracy: int8 drops 1.50 points on 400 samples, "
                "at least 0.60 at 95 % confidence, and 1 may be lost."
            ),
        ),
        (
            [judged(DOUBT), raced(PASSES)],
            (
                "the accuracy of int8 is undecided: int8 drops 1.50 points on 400 samples, between "
                "0.60 and 3.00 at 95 % confidence, and 1 may be lost."
            ),
        ),
        (
            [judged(PASSES), raced(FAILS)],
            (
                "int8 is not shown to be faster: it runs at 0.96 x the speed of float32, and 1.1 x "
                "is asked for."
            ),
        ),
        (
            [judged(PASSES), GateResult(name="speedup", result=DOUBT, bound=1.1, reason="None.")],
            (
                "the speed of int8 is undecided: no such processor is here, and an emulator's "
                "times mean nothing."
            ),
        ),
        (
            [judged(DOUBT), raced(DOUBT)],
            (
                "the accuracy of int8 is undecided: int8 drops 1.50 points on 400 samples, between "
                "0.60 and 3.00 at 95 % confidence, and 1 may be lost; its speed is undecided too."
            ),
        ),
        (
            [raced(DOUBT, low=1.2, high=1.3)],
            (
                "the speed of int8 is undecided: it runs at 0.96 x the speed of float32, and 1.1 x "
                "is asked for, but races disagree."
            ),
        ),
        ([gate("memory", FAILS)], "The whole reason."),
        ([], "The whole reason."),
    ],
)
def test_why_float_was_kept_is_one_sentence(gates: list[GateResult], said: str) -> None:
    assert in_brief("int8", gates, "The whole reason.") == said


def test_a_float_model_that_is_never_right_is_warned_about_whatever_the_metric() -> None:
    accuracy = Accuracy(metric="map50", value=0.0, low=0.0, high=0.04, confidence=0.95, n=100)
    [warning] = warnings_about(accuracy, 0.0)
    assert "map50 is 0 on 100 samples: where nothing is right, nothing can be lost" in warning


def test_labels_that_are_all_the_same_are_warned_about() -> None:
    accuracy = Accuracy(metric="top1", value=1.0, low=0.98, high=1.0, confidence=0.95, n=300)
    [warning] = warnings_about(accuracy, 1.0)
    assert warning.startswith("All 300 labels are the same")
