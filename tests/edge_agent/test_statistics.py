"""What is counted of a release: cheap to keep, right to report."""

import math

import pytest

from edge_agent.statistics import RECENT, Live, Window


def test_a_window_reports_the_stages_that_were_timed_in_milliseconds() -> None:
    window = Window()
    for _ in range(10):
        window.time("inference", 0.005)
    window.result("a", confident=True)
    window.result("a", confident=False)
    assert set(window.latency()) == {"inference"}
    assert window.latency()["inference"].percentile(50) == pytest.approx(5.0, rel=0.05)
    assert (window.inferred, window.confident, window.classes) == (2, 1, {"a": 2})


def test_a_release_that_did_nothing_has_no_latency() -> None:
    live = Live()
    assert live.latency() is None
    assert live.recent() == (0, 0)


def test_percentiles_are_those_of_the_recent_results() -> None:
    live = Live()
    for value in range(1, RECENT + 1):
        live.result(1000.0, confident=False)
        live.result(float(value), confident=value % 2 == 0)
    found = live.latency()
    assert found is not None
    assert found.n == RECENT
    assert live.inferred == 2 * RECENT
    assert live.recent()[0] == RECENT
    assert not math.isnan(found.p95_ms)
    assert found.p50_ms <= found.p95_ms <= found.p99_ms <= 1000.0
