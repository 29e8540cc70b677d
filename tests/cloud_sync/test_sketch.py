"""The latency sketch: merging is adding, percentiles are near."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_sync.sketch import Sketch

VALUES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=60)
RELATIVE_ERROR = 2 ** (1 / 16) - 1


@given(VALUES, VALUES)
def test_a_merged_sketch_is_the_sketch_of_both(a: list[float], b: list[float]) -> None:
    assert Sketch.of(a).merged(Sketch.of(b)) == Sketch.of(a + b)


@given(VALUES, st.integers(1, 100))
def test_a_percentile_is_within_the_stated_error(values: list[float], percent: int) -> None:
    exact = sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]
    assert Sketch.of(values).percentile(percent) == pytest.approx(exact, rel=RELATIVE_ERROR + 1e-9)


def test_what_is_not_positive_is_counted_as_zero() -> None:
    sketch = Sketch.of([0.0, -1.0, math.nan, math.inf])
    assert (sketch.count, sketch.zeros, sketch.percentile(50)) == (4, 4, 0.0)


def test_an_empty_sketch_has_no_percentile() -> None:
    assert math.isnan(Sketch().percentile(50))
