from hypothesis import given
from hypothesis import strategies as st

from fleet.intervals import IntervalSet, Mark

ranges = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 8)).map(lambda r: (r[0], r[0] + r[1])),
    max_size=20,
)


@given(ranges)
def test_holds_exactly_what_was_added_in_disjoint_sorted_ranges(
    added: list[tuple[int, int]],
) -> None:
    made, expected = IntervalSet(), set[int]()
    for first, last in added:
        made = made.with_range(first, last)
        expected |= set(range(first, last + 1))
    assert {n for low, high in made.ranges for n in range(low, high + 1)} == expected
    assert all(a[1] + 1 < b[0] for a, b in zip(made.ranges, made.ranges[1:], strict=False))
    assert all((n in made) == (n in expected) for n in range(80))


@given(ranges)
def test_a_mark_rises_to_the_first_number_that_is_missing(added: list[tuple[int, int]]) -> None:
    mark, expected = Mark(), set[int]()
    for first, last in added:
        mark = mark.with_range(first, last)
        expected |= set(range(first, last + 1))
    missing = next(n for n in range(1, 200) if n not in expected)
    assert mark.through == missing - 1
    assert all((n in mark) == (n in expected) for n in range(80))
    assert all(low > mark.through + 1 for low, _ in mark.above.ranges)


def test_an_empty_range_adds_nothing() -> None:
    assert IntervalSet().with_range(5, 4) == IntervalSet()
