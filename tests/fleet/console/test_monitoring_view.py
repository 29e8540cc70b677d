import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.console.views.monitoring import RANGES, SHORTEST_S, Wanted, address, asked, moved, wanted

NOW = 1_790_000_000.0
TEXT = st.text("abc=, :.", max_size=8)
WANTED = st.builds(
    Wanted,
    quick=st.sampled_from(list(RANGES)),
    model=TEXT,
    release=TEXT,
    hardware_class=TEXT,
    selector=TEXT,
    by=st.sampled_from(["all", "model", "release", "label:site"]),
)


@given(WANTED)
def test_an_address_leads_back_to_what_was_chosen(chosen: Wanted) -> None:
    address = {name: value for name, value in chosen.query().items() if value}
    assert wanted(address) == chosen


@pytest.mark.parametrize(
    "query",
    [
        {"quick": "century", "by": "mood", "from": "nan", "to": "inf"},
        {"from": "20", "to": "10"},
        {"from": "-5", "to": "x"},
    ],
)
def test_what_cannot_be_read_is_as_if_it_were_not_there(query: dict[str, str]) -> None:
    assert wanted(query) == Wanted()


@given(st.floats(-3, 3), st.floats(0.01, 100), st.sampled_from(list(RANGES)))
def test_a_moved_range_ends_by_now_and_can_hold_a_point(
    shift: float, scale: float, quick: str
) -> None:
    begin, end = moved(Wanted(quick=quick), NOW, shift, scale).range(NOW)
    assert end <= NOW + 1
    assert end - begin >= SHORTEST_S - 1


def test_the_service_is_asked_by_digest_and_the_api_call_says_the_same() -> None:
    chosen = Wanted(release="digits:1.0.0", by="label:site", selector="site=north")
    question = asked(chosen, {"digits:1.0.0": "sha256:aa"}, NOW)
    assert (question.release, question.by, question.end - question.begin) == (
        "sha256:aa", ("label:site",), 3600.0
    )  # fmt: skip
    assert "by=label%3Asite" in address(question)
    assert "selector=site%3Dnorth" in address(question)
