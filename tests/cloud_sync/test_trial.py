"""The trial's gates: three answers, each with its numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.evidence import Latency, LiveResult, Verdict
from cloud_sync.messages import TrialPolicy
from cloud_sync.trial import is_enough, judge, wilson

POLICY = TrialPolicy(
    min_inferred=50,
    max_error_rate=0.01,
    min_confident_ratio=0.8,
    max_latency_p95_ratio=3.0,
    latency_slack_ms=5.0,
)


def latency(p95: float, n: int = 100) -> Latency:
    return Latency(p50_ms=p95 / 2, p95_ms=p95, p99_ms=p95 * 2, n=n)


def result(
    inferred: int = 100, confident: int = 90, errors: int = 0, p95: float = 4.0, **more: object
) -> LiveResult:
    fields = {
        "seconds": 60.0,
        "inferred": inferred,
        "confident": confident,
        "errors": errors,
        "latency": latency(p95, inferred) if inferred else None,
        "baseline_release": "1.0.0",
        "baseline_inferred": 200,
        "baseline_confident": 180,
        "baseline_latency": latency(4.0, 200),
    } | more
    return LiveResult(**fields)


def verdict(name: str, live: LiveResult, policy: TrialPolicy = POLICY) -> Verdict:
    [gate] = [gate for gate in judge(live, policy) if gate.name == name]
    return gate.result


@pytest.mark.parametrize(
    ("errors", "inferred", "expected"),
    [
        (0, 100, Verdict.PASS),
        (1, 99, Verdict.PASS),
        (0, 10, Verdict.UNDECIDED),
        (2, 98, Verdict.UNDECIDED),
        (20, 80, Verdict.FAIL),
        (100, 0, Verdict.FAIL),
        (0, 0, Verdict.UNDECIDED),
    ],
)
def test_the_error_rate(errors: int, inferred: int, expected: Verdict) -> None:
    live = result(inferred=inferred, confident=inferred, errors=errors)
    assert verdict("live.error_rate", live) is expected


@pytest.mark.parametrize(
    ("confident", "inferred", "expected"),
    [
        (90, 100, Verdict.PASS),
        (73, 100, Verdict.UNDECIDED),  # 0.72 is wanted, the interval holds it
        (50, 100, Verdict.FAIL),
        (0, 60, Verdict.FAIL),
        (5, 10, Verdict.UNDECIDED),  # too few to say
        (0, 0, Verdict.UNDECIDED),
    ],
)
def test_the_confident_share_against_that_of_the_release_before(
    confident: int, inferred: int, expected: Verdict
) -> None:
    live = result(inferred=inferred, confident=confident)
    assert verdict("live.confident_share", live) is expected


def test_a_first_release_has_nothing_to_be_compared_with_and_says_so() -> None:
    live = result(confident=3, baseline_inferred=0, baseline_confident=0, baseline_latency=None)
    gates = judge(live, POLICY)
    assert {gate.result for gate in gates} == {Verdict.PASS}
    assert sum("no release before it" in gate.reason for gate in gates) == 2


@pytest.mark.parametrize(
    ("p95", "inferred", "expected"),
    [
        (4.0, 100, Verdict.PASS),
        (17.0, 100, Verdict.PASS),
        (17.1, 100, Verdict.FAIL),
        (99.0, 49, Verdict.UNDECIDED),
        (4.0, 0, Verdict.UNDECIDED),
    ],
)
def test_the_latency_against_that_of_the_release_before(
    p95: float, inferred: int, expected: Verdict
) -> None:
    live = result(inferred=inferred, confident=inferred, p95=p95)
    assert verdict("live.latency_p95", live) is expected


def test_a_trial_lasts_its_soak_and_sees_its_minimum() -> None:
    assert is_enough(60.0, 50, POLICY)
    assert not is_enough(59.9, 50, POLICY)
    assert not is_enough(60.0, 49, POLICY)


def test_an_undecided_gate_says_how_many_results_would_decide() -> None:
    gates = {gate.name: gate for gate in judge(result(confident=73), POLICY)}
    needed = gates["live.confident_share"].n_needed
    assert needed is not None
    assert needed > 100


def test_wilson_is_the_interval_of_the_books() -> None:
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert wilson(0, 0) == (0.0, 1.0)


counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_holds_the_share_and_narrows_with_more_samples(pair: tuple[int, int]) -> None:
    count, n = pair
    low, high = wilson(count, n)
    assert 0.0 <= low <= count / n <= high <= 1.0
    wide = high - low
    low, high = wilson(count * 4, n * 4)
    assert high - low < wide


@given(live=counts, base=counts, errors=st.integers(0, 200))
def test_verdicts_follow_their_numbers(
    live: tuple[int, int], base: tuple[int, int], errors: int
) -> None:
    found = result(
        inferred=live[1],
        confident=live[0],
        errors=errors,
        baseline_confident=base[0],
        baseline_inferred=base[1],
    )
    for gate in judge(found, POLICY):
        assert gate.reason
        if gate.result is Verdict.UNDECIDED and gate.name != "live.latency_p95":
            assert gate.n_needed is None or gate.n_needed >= POLICY.min_inferred
        if gate.name == "live.confident_share" and gate.bound is not None:
            assert gate.low is not None
            assert gate.high is not None
            if gate.result is Verdict.PASS:
                assert gate.low >= gate.bound
            if gate.result is Verdict.FAIL:
                assert gate.high < gate.bound


@given(counts, counts)
def test_more_confident_results_never_make_it_worse(
    live: tuple[int, int], base: tuple[int, int]
) -> None:
    order = [Verdict.FAIL, Verdict.UNDECIDED, Verdict.PASS]
    answers = [
        verdict(
            "live.confident_share",
            result(
                inferred=live[1],
                confident=confident,
                baseline_confident=base[0],
                baseline_inferred=base[1],
            ),
        )
        for confident in (live[0], live[1])
    ]
    assert order.index(answers[0]) <= order.index(answers[1])
