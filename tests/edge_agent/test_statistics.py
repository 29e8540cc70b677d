"""What is counted of a release: cheap to keep, right to report."""

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
    for value in range(1, 2 * RECENT + 1):
        live.result(float(value), confident=value > RECENT)
    found = live.latency()
    assert found is not None
    assert found.n == RECENT
    assert live.inferred == 2 * RECENT
    assert live.recent() == (RECENT, RECENT)
    assert found.p50_ms == pytest.approx(1.5 * RECENT, rel=0.01)
    assert found.p95_ms == pytest.approx(1.95 * RECENT, rel=0.01)
    assert found.p99_ms == pytest.approx(1.99 * RECENT, rel=0.01)
