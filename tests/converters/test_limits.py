"""Limits on size, memory, start and latency: who keeps them, who does not, and what is unknown."""

import numpy as np
import pytest

from cloud_sync.evidence import Verdict
from converters.limits import Taken, latency_gate, limit_gate, limit_gates
from converters.quantities import parse_bytes, parse_ms
from edgeml.errors import UserError
from hardware.profiles import Limits

EVERY = Limits(
    max_model_bytes=4_000_000, max_memory_bytes=90_000_000, max_start_ms=50, max_latency_ms=9
)


def taken(**changes: object) -> Taken:
    given = {"model_bytes": 3_000_000, "memory_bytes": 80_000_000, "start_ms": 41.0}
    return Taken(**given | {"milliseconds": (8.0,) * 40} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "result"),
    [(4.0, Verdict.PASS), (5.0, Verdict.PASS), (5.1, Verdict.FAIL), (None, Verdict.UNDECIDED)],
)
def test_a_limit_holds_up_to_its_bound(value: float | None, result: Verdict) -> None:
    gate = limit_gate("start", value, 5.0, "ms")
    assert (gate.name, gate.result, gate.value, gate.bound, gate.unit) == (
        *("start", result, value, 5.0, "ms"),
    )
    assert "at most 5.00 ms are allowed" in gate.reason


def test_a_limit_whose_value_is_no_number_is_undecided() -> None:
    assert limit_gate("memory", float("nan"), 5.0, "bytes").result is Verdict.UNDECIDED


def test_each_limit_that_is_set_has_a_gate_with_float_beside_it() -> None:
    gates = {g.name: g for g in limit_gates(EVERY, taken(), taken(start_ms=30.0), confidence=0.95)}
    assert list(gates) == ["size", "memory", "start", "latency"]
    assert {g.result for g in gates.values()} == {Verdict.PASS}
    assert (gates["start"].baseline, gates["latency"].baseline) == (30.0, 8.0)
    assert gates["size"].reason == "Its file has 3.00 MB where at most 4.00 MB are allowed."
    assert not list(limit_gates(Limits(), taken(), None, confidence=0.95))


def test_what_was_not_measured_on_the_targets_architecture_is_undecided() -> None:
    unmeasured = taken(memory_bytes=0, start_ms=0.0, milliseconds=())
    gates = {g.name: g for g in limit_gates(EVERY, unmeasured, taken(), confidence=0.95)}
    assert gates["size"].result is Verdict.PASS
    for name in ("memory", "start", "latency"):
        assert gates[name].result is Verdict.UNDECIDED
        assert "not" in gates[name].reason
        assert gates[name].value is None


@pytest.mark.parametrize(
    ("bound", "result"), [(11.0, Verdict.PASS), (10.0, Verdict.UNDECIDED), (9.0, Verdict.FAIL)]
)
def test_the_median_latency_is_judged_by_its_interval(bound: float, result: Verdict) -> None:
    times = np.random.default_rng(3).normal(10, 0.5, 200).tolist()
    gate = latency_gate(times, bound, baseline=20.0, confidence=0.95)
    assert gate.result is result
    assert gate.low is not None
    assert gate.high is not None
    assert gate.low < 10 < gate.high
    assert (gate.n_needed is not None) == (result is Verdict.UNDECIDED)


def test_a_few_rounds_cannot_tell_a_latency() -> None:
    gate = latency_gate([1.0, 1.0], 5.0, baseline=None, confidence=0.95)
    assert (gate.result, gate.high) == (Verdict.UNDECIDED, None)


def test_the_tighter_of_profile_and_request_holds() -> None:
    both = Limits(max_model_bytes=5, max_start_ms=9).within(Limits(max_model_bytes=7))
    assert both == Limits(max_model_bytes=5, max_start_ms=9)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4MB", 4_000_000), ("4 MiB", 4 << 20), ("1.5kB", 1500), ("12B", 12), (" 2 GB ", 2 * 10**9)],
)
def test_sizes_are_read_as_people_write_them(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(("text", "value"), [("200ms", 200), ("0.2 s", 200), ("50us", 0.05)])
def test_times_are_read_as_people_write_them(text: str, value: float) -> None:
    assert parse_ms(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "4", "MB", "-4MB", "0MB", "4mb", "4 M B", "1e3MB", "nanMB", "0.1B", "٤MB", "4MB5"]
)
def test_a_size_without_its_unit_or_sense_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="such as 4MB"):
        parse_bytes(text)
