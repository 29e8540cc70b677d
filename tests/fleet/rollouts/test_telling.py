"""Of many gates the one is shown that says most."""

from cloud_sync.evidence import GateResult, Verdict
from fleet.rollouts.telling import telling


def gate(
    name: str, result: Verdict, value: float | None, low: float | None = None, bound: float = 1.0
) -> GateResult:
    return GateResult(name=name, result=result, value=value, bound=bound, low=low)


def test_what_failed_comes_before_what_is_undecided_and_what_passes() -> None:
    gates = [
        gate("pass", Verdict.PASS, 0.99),
        gate("doubt", Verdict.UNDECIDED, 0.5),
        gate("fail", Verdict.FAIL, 3.0),
    ]
    for _ in range(3):
        found = telling(gates)
        assert found is gates[-1]
        gates.remove(found)


def test_of_those_that_pass_the_narrowest_is_told() -> None:
    wide, narrow = gate("wide", Verdict.PASS, 0.1), gate("narrow", Verdict.PASS, 0.9)
    assert telling([wide, narrow]) is narrow
    with_interval = gate("interval", Verdict.PASS, 0.1, low=0.05)
    assert telling([wide, narrow, with_interval]) is with_interval


def test_without_numbers_there_is_none() -> None:
    assert telling([]) is None
    assert telling([gate("no value", Verdict.FAIL, None)]) is None
