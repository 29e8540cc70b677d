from hypothesis import given
from hypothesis import strategies as st

from fleet.access import rate
from fleet.access.rate import Buckets, Rate


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_through_and_then_one_at_a_time() -> None:
    clock = Clock()
    buckets = Buckets(Rate(burst=3, per_s=0.5), clock)
    assert [buckets.wait_s("a") for _ in range(4)] == [0.0, 0.0, 0.0, 2.0]
    clock.now += 1.0
    assert buckets.wait_s("a") == 1.0
    clock.now += 1.0
    assert [buckets.wait_s("a"), buckets.wait_s("a")] == [0.0, 2.0]


def test_each_key_has_its_own() -> None:
    buckets = Buckets(Rate(burst=1, per_s=1.0), Clock())
    assert [buckets.wait_s(key) for key in "abab"] == [0.0, 0.0, 1.0, 1.0]


def test_no_more_buckets_are_kept_than_the_bound() -> None:
    buckets = Buckets(Rate(burst=1, per_s=1.0), Clock())
    for number in range(rate._MAX_KEYS + 10):
        buckets.wait_s(number)
    assert len(buckets._buckets) == rate._MAX_KEYS


@given(st.lists(st.floats(0.0, 5.0), max_size=60), st.integers(1, 5), st.floats(0.1, 3.0))
def test_never_more_than_the_burst_and_what_has_flowed_in(
    pauses: list[float], burst: int, per_s: float
) -> None:
    clock = Clock()
    buckets = Buckets(Rate(burst=burst, per_s=per_s), clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += buckets.wait_s("a") == 0.0
        assert taken <= burst + clock.now * per_s + 1e-6


@given(st.floats(0.1, 3.0))
def test_who_waits_as_long_as_told_is_let_through(per_s: float) -> None:
    clock = Clock()
    buckets = Buckets(Rate(burst=1, per_s=per_s), clock)
    buckets.wait_s("a")
    clock.now += buckets.wait_s("a") + 1e-9
    assert buckets.wait_s("a") == 0.0
