"""Update windows: when they are open, for how long they were, and what a device says of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_sync.windows import DAYS, UpdateWindow, closed, is_timezone, open_s, opens_in

HOUR = 3600
windows = st.builds(
    UpdateWindow,
    days=st.lists(st.sampled_from(DAYS), min_size=1, unique=True).map(tuple),
    begins=st.sampled_from(["00:00", "08:00", "22:00"]),
    ends=st.sampled_from(["00:00", "05:00", "09:00"]),
)


@settings(max_examples=100)
@given(
    st.lists(windows, max_size=3),
    st.integers(450_000, 550_000),
    st.integers(0, 24 * 9),
    st.integers(-14, 14),
)
def test_the_time_that_was_open_is_what_counting_hours_gives(
    some: list[UpdateWindow], since: int, hours: int, offset: int
) -> None:
    begins, ends = since * HOUR, (since + hours) * HOUR
    # Every window begins and ends on a full hour: what holds in its middle holds in all of it.
    counted = sum(
        opens_in(some, at + HOUR / 2, offset * HOUR) == 0 for at in range(begins, ends, HOUR)
    )
    assert open_s(some, begins, ends, offset * HOUR) == counted * HOUR


def test_a_device_says_which_window_it_waits_for() -> None:
    night = UpdateWindow(begins="22:00", ends="05:00")
    weekend = UpdateWindow(days=("sat", "sun"), begins="10:00", ends="12:00", timezone="UTC")
    assert closed([night], 23 * HOUR, 0) == ""
    assert closed([], 12 * HOUR, 0) == ""
    assert closed([night, weekend], 12 * HOUR, 0) == (
        "it waits for its update window "
        "(every day 22:00 to 05:00 device time or sat, sun 10:00 to 12:00 UTC)"
    )


def test_a_zone_that_a_device_does_not_know_any_more_holds_updates_and_says_so() -> None:
    gone = UpdateWindow(begins="00:00", ends="00:00", timezone="Europe/Nowhere")
    assert "does not know its time zone" in closed([gone], 0.0, 0)


@pytest.mark.parametrize(
    ("name", "known"), [("device", True), ("Europe/Berlin", True), ("../etc", False), ("x", False)]
)
def test_a_time_zone_is_the_devices_or_has_a_name(name: str, known: bool) -> None:
    assert is_timezone(name) is known
