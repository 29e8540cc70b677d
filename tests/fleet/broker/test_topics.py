"""Topics and filters, against the standard's own examples and a second way to match."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.broker.topics import TopicTree, matches, valid_filter, valid_topic

LEVELS = st.sampled_from(["a", "b", "", "cam-1"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(st.one_of(LEVELS, st.just("+")), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


def as_pattern(topic_filter: str) -> re.Pattern[str]:
    """A filter as a regular expression: the second way."""
    if topic_filter.endswith("/#"):
        return re.compile(as_pattern(topic_filter[:-2]).pattern + "(/.*)?")
    return re.compile(
        "/".join("[^/]*" if x == "+" else re.escape(x) for x in topic_filter.split("/"))
    )


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1"),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
        ("sport/+", "sport/"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("#", "a/b"),
        ("$SYS/#", "$SYS/uptime"),
    ],
)
def test_a_filter_matches_as_the_standard_says(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic)


@pytest.mark.parametrize(
    ("topic_filter", "topic"),
    [("sport/+", "sport"), ("+", "/finance"), ("#", "$SYS/x"), ("+/x", "$SYS/x"), ("a", "a/b")],
)
def test_a_filter_matches_no_more_than_the_standard_says(topic_filter: str, topic: str) -> None:
    assert not matches(topic_filter, topic)


@pytest.mark.parametrize("wrong", ["", "a/#/b", "a#", "a/b+", "+a/b", "a/" * 40, "x" * 600])
def test_a_malformed_filter_is_refused(wrong: str) -> None:
    assert not valid_filter(wrong)


@pytest.mark.parametrize("wrong", ["", "a/+", "#", "a/" * 40, "x" * 600])
def test_a_topic_without_wildcards_and_of_bounded_length_is_valid_only(wrong: str) -> None:
    assert valid_topic("edgeml/v1/cam-1/up/state")
    assert not valid_topic(wrong)


@given(FILTERS, TOPICS)
def test_matching_agrees_with_a_regular_expression(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == bool(as_pattern(topic_filter).fullmatch(topic))


@given(st.lists(FILTERS, unique=True, max_size=8), TOPICS)
def test_the_tree_finds_exactly_the_filters_that_match(filters: list[str], topic: str) -> None:
    tree: TopicTree[str] = TopicTree()
    for topic_filter in filters:
        tree.add(topic_filter, topic_filter)
    assert sorted(tree.find(topic)) == sorted(each for each in filters if matches(each, topic))


@given(st.lists(FILTERS, unique=True, min_size=1, max_size=8), st.randoms())
def test_a_tree_whose_filters_were_removed_keeps_nothing(filters: list[str], order: object) -> None:
    tree: TopicTree[int] = TopicTree()
    for topic_filter in filters:
        tree.add(topic_filter, 1)
    order.shuffle(filters)  # type: ignore[attr-defined]
    for topic_filter in filters:
        tree.remove(topic_filter, 1)
        tree.remove(topic_filter, 1)
    assert not tree
