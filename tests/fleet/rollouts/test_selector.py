import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import UserError
from fleet.rollouts.selector import Requirement, check_labels, parse_selector

LABELS = {"site": "north", "tier": "edge", "floor": "3", "example.org/line": "A1"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("  ", True),
        ("site=north", True),
        ("site==north", True),
        ("site = north , tier=edge", True),
        ("site=south", False),
        ("site!=south", True),
        ("site!=north", False),
        ("missing!=north", True),
        ("tier in (edge, dev)", True),
        ("tier in (dev)", False),
        ("tier notin (dev,test),site", True),
        ("missing notin (a)", True),
        ("missing in (a)", False),
        ("site", True),
        ("missing", False),
        ("!missing", True),
        ("!site", False),
        ("floor>2", True),
        ("floor > 3", False),
        ("floor<4", True),
        ("site>1", False),
        ("missing<1", False),
        ("site=", False),
        ("missing=", False),
        ("example.org/line=A1", True),
        ("in in (notin),in", False),
    ],
)
def test_a_selector_chooses_by_labels(text: str, matches: bool) -> None:
    assert parse_selector(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text",
    ["a,,b", "a,", ",a", "a in", "a in ()", "a in b", "a in (b", "a = b c", "=a", "a=b=c", "!a=b",
     "a in ((b))", "a>b", "a/b/c", "-a", "a" * 64, "a=" + "b" * 64, "a b", "x" * 5000],
)  # fmt: skip
def test_what_is_no_selector_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="selector"):
        parse_selector(text)


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
VALUES = st.one_of(st.just(""), NAMES)
REQUIREMENTS = st.one_of(
    st.builds(
        lambda key, operator, values: Requirement(key=key, operator=operator, values=tuple(values)),
        NAMES,
        st.sampled_from(("in", "notin")),
        st.lists(NAMES, min_size=1, max_size=3),
    ),
    st.builds(
        lambda key, operator: Requirement(key=key, operator=operator),
        NAMES,
        st.sampled_from(("exists", "absent")),
    ),
    st.builds(
        lambda key, operator, n: Requirement(key=key, operator=operator, values=(str(n),)),
        NAMES,
        st.sampled_from(("gt", "lt")),
        st.integers(-999, 999),
    ),
)


@given(st.lists(REQUIREMENTS, max_size=4))
def test_what_is_written_is_read_back(requirements: list[Requirement]) -> None:
    text = ",".join(str(r) for r in requirements)
    parsed = parse_selector(text)
    assert list(parsed.requirements) == requirements
    assert parse_selector(str(parsed)).requirements == parsed.requirements


@given(NAMES, VALUES, st.dictionaries(NAMES, VALUES, max_size=3))
def test_an_equality_and_its_opposite_divide_all_devices(
    key: str, value: str, labels: dict[str, str]
) -> None:
    equal = parse_selector(f"{key}={value}").matches(labels)
    assert parse_selector(f"{key}!={value}").matches(labels) is not equal
    assert equal is (labels.get(key) == value)


@given(st.text(max_size=60))
def test_any_text_is_a_selector_or_one_sentence(text: str) -> None:
    with contextlib.suppress(UserError):
        parse_selector(text).matches(LABELS)


@pytest.mark.parametrize(
    "labels", [{"a b": "c"}, {"": "c"}, {"a": "b c"}, {"a": "x" * 64}, {"a\n": "b"}]
)
def test_labels_that_no_selector_could_name_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(UserError, match="not allowed"):
        check_labels(labels)


def test_labels_are_returned_as_they_are() -> None:
    assert check_labels(LABELS) == LABELS
