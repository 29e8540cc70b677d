from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.console.views.gate_plot import plot_of


def gate(name: str = "live.error_rate", **numbers: Any) -> dict[str, Any]:
    return {"name": name, "unit": "", **numbers}


def test_a_share_has_the_whole_scale_from_none_to_all() -> None:
    plot = plot_of(gate("arm: live.confident_share", value=0.5, bound=0.8, low=0.0, high=1.0))
    assert plot is not None
    assert (plot.value, plot.interval) == (50.0, (2.0, 98.0))
    assert plot.allowed == (plot.bound, 100.0)


def test_a_value_that_must_stay_below_is_allowed_from_nought_to_the_bound() -> None:
    plot = plot_of(gate(value=3.0, bound=10.0, baseline=2.0, unit="ms"))
    assert plot is not None
    assert plot.allowed == (0.0, plot.bound)
    assert plot.baseline is not None
    assert plot.baseline < plot.value < plot.bound


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"value": 1.0},
        {"value": None, "bound": 1.0},
        {"value": 0.0, "bound": 0.0},
        {"value": -1.0, "bound": 1.0},
        {"value": float("inf"), "bound": 1.0},
        {"value": float("nan"), "bound": 1.0},
    ],
)
def test_what_no_scale_shows_has_no_plot(numbers: dict[str, Any]) -> None:
    assert plot_of(gate(**numbers)) is None


NUMBERS = st.one_of(st.none(), st.floats())


@given(st.fixed_dictionaries(dict.fromkeys(("value", "bound", "low", "high", "baseline"), NUMBERS)))
def test_everything_lies_on_the_scale(numbers: dict[str, float | None]) -> None:
    plot = plot_of({**gate(), **numbers})
    if plot is not None:
        places = [plot.value, plot.bound, *plot.allowed, *(plot.interval or ())]
        places += [plot.baseline] if plot.baseline is not None else []
        assert all(0 <= place <= 100 for place in places)
