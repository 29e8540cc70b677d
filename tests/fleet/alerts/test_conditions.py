"""The pure core of alerts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import UserError
from fleet.alerts.conditions import (
    SEVERITY,
    Ends,
    Facts,
    Finding,
    Kind,
    Refused,
    Silent,
    Troubled,
    findings,
)
from fleet.alerts.rules import AlertRules, parse_rules
from fleet.alerts.states import Firing, turn

NOW = 1_700_000_000.0
RULES = AlertRules()


def found(**facts: Any) -> list[tuple[str, str]]:
    return [(f.kind, f.subject) for f in findings(RULES, Facts(now=NOW, **facts))]


def test_a_fleet_in_which_nothing_is_wrong_has_no_alert() -> None:
    assert found(disk_free=50, disk_total=100) == []


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"silent": (Silent("cam-1", NOW - 1000),), "silent_number": 1},
            ("device-offline", "cam-1"),
        ),
        ({"silent_number": 51}, ("devices-offline", "fleet")),
        (
            {"rollouts": (Troubled(rollout="r", stopped=True, sentence="Why."),)},
            ("rollout-halted", "r"),
        ),
        (
            {
                "rollouts": (
                    Troubled(rollout="r", stopped=False, sentence="", gates=(("golden", "No."),)),
                )
            },
            ("gate-failed", "r"),
        ),
        (
            {"refused": (Refused(device="cam-1", kind="clone", number=2, newest=NOW, detail="x"),)},
            ("security-event", "cam-1"),
        ),
        ({"ends": (Ends("root", NOW + 10, 60.0, "Sign it."),)}, ("expiry", "root")),
        ({"ends": (Ends("root", NOW - 10, 60.0, "Sign it."),)}, ("expiry", "root")),
        ({"disk_free": 9, "disk_total": 100}, ("disk-low", "fleet")),
        ({"ingest_waiting": 1001.0}, ("ingest-backlog", "fleet")),
        ({"dead": {"wh_1": 3}}, ("webhook-dead", "wh_1")),
        ({"frozen": "The database was restored."}, ("frozen", "fleet")),
    ],
)
def test_each_condition_is_found(facts: dict[str, Any], expected: tuple[str, str]) -> None:
    assert found(**facts) == [expected]


def test_every_kind_has_a_severity() -> None:
    assert set(SEVERITY) == set(Kind)


def test_what_ends_later_is_not_told_of() -> None:
    assert found(ends=(Ends("root", NOW + 61, 60.0, ""),)) == []


def test_two_kinds_of_security_event_of_one_device_are_two_alerts() -> None:
    events = tuple(
        Refused(device="cam-1", kind=kind, number=1, newest=NOW, detail="") for kind in ("a", "b")
    )
    keys = {f.key for f in findings(RULES, Facts(now=NOW, refused=events))}
    assert len(keys) == 2


def test_a_sentence_is_one_line_and_bounded() -> None:
    [one] = findings(RULES, Facts(now=NOW, frozen="a\n" * 5000))
    assert len(one.summary) <= 500
    assert "\n" not in one.summary


keys = st.sets(st.sampled_from("abcdef"))


def finding(key: str, summary: str = "It holds.") -> Finding:
    return Finding(kind=Kind.FROZEN, subject=key, summary=summary)


@given(st.lists(keys, max_size=8))
def test_an_alert_fires_from_when_its_condition_holds_until_it_ends(
    history: list[set[str]],
) -> None:
    firing: dict[str, Firing] = {}
    for holds in history:
        step = turn(firing.values(), [finding(key) for key in sorted(holds)])
        for one in step.fired:
            assert one.key not in firing
            firing[one.key] = Firing(one.key, one.summary)
        for key in step.resolved:
            del firing[key]
        assert {finding(key).key for key in holds} == set(firing)
        assert step.told == ()


def test_another_sentence_is_told_and_is_no_event() -> None:
    step = turn([Firing(finding("a").key, "Once.")], [finding("a", "Twice.")])
    assert (step.fired, step.resolved) == ((), ())
    assert [f.summary for f in step.told] == ["Twice."]


@pytest.mark.parametrize(
    "settings", [{"nope": 1}, {"expiry_s": -1}, {"disk_free_share": 2}, {"expiry_s": "x"},
                 {"device_offline_s": float("nan")}, {"device_offline_s": float("inf")}],
)  # fmt: skip
def test_a_rule_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        parse_rules(settings)
