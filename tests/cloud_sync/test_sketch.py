"""The latency sketch: merging is adding, percentiles are near."""

import contextlib
import math

import msgspec
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


@given(VALUES, VALUES, VALUES)
def test_the_order_of_merging_does_not_matter(
    a: list[float], b: list[float], c: list[float]
) -> None:
    x, y, z = (Sketch.of(values) for values in (a, b, c))
    assert x.merged(y).merged(z) == z.merged(x).merged(y)


@given(st.floats(min_value=5e-324, allow_infinity=False))
def test_every_positive_number_has_its_bucket_and_is_found_there(value: float) -> None:
    sketch = Sketch.of([value])
    assert sketch.zeros == 0
    assert sketch.percentile(50) == pytest.approx(value, rel=RELATIVE_ERROR + 1e-9, abs=1e-320)


@pytest.mark.parametrize(
    "document",
    [
        {"scale": 4},
        {"zeros": -1},
        {"buckets": {"0": -1}},
        {"buckets": {"x": 1}},
        {"buckets": {"01": 1}},
        {"buckets": {"1_0": 1}},
        {"buckets": {"99999": 1}},
        {"buckets": {"\u0663": 1}},
    ],
)
def test_a_sketch_that_could_not_be_merged_is_refused_when_it_is_read(document: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, Sketch)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "scale": st.integers(2, 4),
            "zeros": st.integers(-1, 10),
            "buckets": st.dictionaries(
                st.integers(-9000, 9000).map(str) | st.text(max_size=3), st.integers(-1, 9)
            ),
        },
    )
)
def test_whatever_is_read_can_be_merged_and_asked(document: object) -> None:
    with contextlib.suppress(msgspec.ValidationError):
        sketch = msgspec.convert(document, Sketch)
        both = sketch.merged(Sketch.of([1.0]))
        assert both.count == sketch.count + 1
        assert both.percentile(99) >= 0


def test_an_empty_sketch_has_no_percentile() -> None:
    assert math.isnan(Sketch().percentile(50))
