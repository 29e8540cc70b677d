"""What was recorded under a wrong clock is dated by the fleet's word."""

from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.dating import CLOCK_OFF_S, DRIFT, Dating

NOW = 1_800_000_000.0
delays = st.floats(0.0, 3600.0)


def test_without_the_fleets_word_the_devices_clock_stands() -> None:
    assert Dating().date(NOW, 5.0) == NOW
    assert Dating().date(None, 5.0) is None


def test_a_clock_that_is_about_right_is_left_alone() -> None:
    dating = Dating()
    dating.learn(NOW + 100, 100.0)
    assert dating.date(NOW + 7.25, 5.0) == NOW + 7.25


def test_one_that_is_far_off_is_overruled_either_way() -> None:
    dating = Dating()
    dating.learn(NOW + 100, 100.0)
    for wrong in (946_684_800.0, NOW - 3 * 86400, NOW + 20 * 365 * 86400):
        assert dating.date(wrong, 5.0) == NOW + 5


@given(acks=st.lists(st.tuples(st.floats(0.0, 1e5), delays), min_size=1), moment=delays)
def test_the_date_is_never_late_and_at_worst_as_early_as_the_best_ack(
    acks: list[tuple[float, float]], moment: float
) -> None:
    dating = Dating()
    best, came = 1e9, 0.0
    for wait, delay in acks:
        before, came = came, came + wait
        best = min(best + DRIFT * (came - before), delay)
        dating.learn(NOW + came - delay, came)
    found = dating.date(None, moment)
    assert found is not None
    assert NOW + moment - best - 1e-3 <= found <= NOW + moment + 1e-3


def test_a_clock_that_runs_fast_is_followed() -> None:
    dating = Dating()
    for day in range(365):
        true = day * 86400.0
        dating.learn(NOW + true, true * (1 + 50e-6))
    found = dating.date(None, 365 * 86400.0 * (1 + 50e-6))
    assert found is not None
    assert abs(found - (NOW + 365 * 86400)) < CLOCK_OFF_S
