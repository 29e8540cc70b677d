import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.broker.access import may_be_named, may_use
from fleet.broker.credentials import SUPERUSER
from fleet.broker.topics import matches, valid_filter

IDS = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)


@given(IDS, st.text("abc+#/$v1edgml-", max_size=30))
def test_no_filter_that_a_device_may_use_reaches_another_device(device: str, rest: str) -> None:
    for topic_filter in (rest, f"edgeml/v1/{device}/{rest}", f"edgeml/v1/{rest}"):
        if may_use(device, topic_filter) and valid_filter(topic_filter):
            other = device + "x"
            assert not matches(topic_filter, f"edgeml/v1/{other}/down/desired")


@pytest.mark.parametrize(
    "topic", ["#", "+/#", "edgeml/v1/#", "edgeml/v1/+/up/x", "edgeml/v1/cam", "edgeml/v1/cam-2/up"]
)
def test_a_device_uses_its_own_topics_only(topic: str) -> None:
    assert may_use("cam", "edgeml/v1/cam/up/state")
    assert not may_use("cam", topic)
    assert may_use(SUPERUSER, topic)


@pytest.mark.parametrize("name", ["", "+", "a/b", "#", "a+", "$share"])
def test_a_name_that_would_widen_the_rule_is_refused(name: str) -> None:
    assert not may_be_named(name, name)


def test_a_device_connects_under_its_own_id_only() -> None:
    assert may_be_named("cam", "cam")
    assert not may_be_named("cam", "cam-2")
    assert not may_be_named("cam", SUPERUSER)
    assert may_be_named(SUPERUSER, f"{SUPERUSER}-2")
    assert not may_be_named(SUPERUSER, "cam")
