"""What the pages of rollouts say, without a browser."""

from typing import Any

import pytest

from edgeml.errors import UserError
from fleet.console.views import policy_fields as fields
from fleet.console.views import policy_form as form
from fleet.console.views.plan import plan_view
from fleet.console.views.rollout_actions import actions_of, may_override, override_of
from fleet.roles import Role
from fleet.rollouts import parse_policy


def rollout(status: str, outcomes: str, **more: Any) -> Any:
    """A rollout whose devices stand as letters say: committed, failed, waiting, updating."""
    words = {"c": "committed", "f": "failed", "w": "waiting", "u": "updating"}
    devices = [
        {"device": f"cam-{n}", "outcome": words[letter], "wave": None if letter == "w" else 1}
        for n, letter in enumerate(outcomes)
    ]
    return {
        "id": "digits-1", "model": "digits", "version": "1.2.0", "kind": "release", "wave": 1,
        "status": status, "devices": devices, "created_by": "olga/ci", "waits_for": "",
        "policy": {"waves": [{"count": 1}, {"percent": 100.0}], "on_failure": "rollback"}, **more,
    }  # fmt: skip


def verbs(info: Any, role: Role = Role.OPERATOR, person: str = "otto") -> list[str]:
    return [action.verb for action in actions_of(info, role, person).actions]


def test_what_is_offered_follows_status_and_role() -> None:
    assert verbs(rollout("draft", "ww")) == ["start", "abort"]
    assert verbs(rollout("running", "cw")) == ["pause", "abort"]
    assert verbs(rollout("paused", "fw")) == ["resume", "retry", "abort"]
    assert verbs(rollout("completed", "cc")) == ["rollback"]
    assert verbs(rollout("halted", "ww")) == []
    assert verbs(rollout("running", "cw"), Role.VIEWER) == []


def test_nobody_is_offered_to_approve_their_own() -> None:
    asks = {"waits_for": "approval"}
    info = rollout("running", "ww", **asks)
    info["policy"]["approval"] = "each-wave"
    assert "approve" in verbs(info, Role.APPROVER, "anna")
    assert "approve" not in verbs(info, Role.APPROVER, "olga")
    assert "somebody else" in actions_of(info, Role.APPROVER, "olga").notes[0]
    own = actions_of(info, Role.ADMIN, "olga").actions[0]
    assert (own.verb, own.asks_reason) == ("approve", True)


def test_an_abort_says_how_many_devices_go_back_and_wants_the_name() -> None:
    info = rollout("running", "ccfuww")
    abort = actions_of(info, Role.OPERATOR, "otto").actions[-1]
    assert abort.consequences[0] == "4 devices that it reached go back to what they ran before."
    assert abort.consequences[1] == "2 devices that wait get nothing."
    assert abort.typed == "digits:1.2.0"
    info["policy"]["on_failure"] = "pause"
    kept = actions_of(info, Role.OPERATOR, "otto").actions[-1]
    assert kept.consequences[0] == "4 devices that it reached stay as they are."


def test_only_a_gate_that_does_not_pass_can_be_overridden_and_by_an_approver() -> None:
    info = rollout("running", "cw")
    gate = {"name": "devices.failed", "result": "undecided", "reason": "0 of 1 failed."}
    assert may_override(info, gate, Role.APPROVER)
    assert not may_override(info, gate, Role.OPERATOR)
    assert not may_override(info, {**gate, "result": "pass"}, Role.ADMIN)
    assert override_of(info, gate).asks_reason


def test_the_form_and_the_file_say_the_same() -> None:
    tree = form.put({}, ("selector",), "site=north")
    assert form.command_of("digits", "1.2.0", tree, draft=False, why="") == (
        "edgeml rollout create digits:1.2.0 --selector 'site=north'"
    )
    tree = form.put(tree, ("waves",), [{"count": 1.0, "soak_s": None}, {"percent": 100.0}])
    tree = form.put(tree, ("limits", "max_failures"), 2.0)
    assert form.tree_of(form.text_of(tree)) == tree
    assert form.policy_of(tree).limits.max_failures == 2
    assert form.put(tree, ("limits", "max_failures"), None).get("limits") is None
    assert form.put({}, ("soak_s",), 60.0) == {}


EXAMPLES: dict[str, Any] = {
    "start_at": "2026-12-01T00:00:00Z",
    "together.commit_timeout_s": 900,
    "begins": "21:30",
    "ends": "04:30",
    "timezone": "Europe/Berlin",
}


def example(field: fields.Field) -> Any:
    first = next(iter(field.choices), "line" if field.is_text else 1)
    return EXAMPLES.get(field.name, [first] if field.is_many else first)


def test_every_field_of_the_form_is_one_of_the_policy() -> None:
    rest = {"rate": {"per_minute": 5}, "together": {"label": "site"}}
    for section in fields.SECTIONS:
        for field in section.fields:
            form.policy_of(form.put(rest, field.path, example(field)))
        for rows in section.rows:
            for field in rows.fields:
                row = {**rows.new, field.path[0]: example(field)}
                form.policy_of(form.put_rows({}, rows, [row]))


def test_lists_of_the_form_say_what_differs_from_the_defaults_alone() -> None:
    tree = form.put_rows({}, fields.WINDOWS, [dict(fields.WINDOWS.new)])
    shown = form.rows_of(tree, fields.WINDOWS)
    assert shown[0]["timezone"] == "device"
    shown[0]["days"] = ["sat", "sun"]
    tree = form.put_rows(tree, fields.WINDOWS, shown)
    assert form.tree_of(form.text_of(tree)) == tree
    assert form.policy_of(tree).windows[0].days == ("sat", "sun")
    assert tree["windows"][0].keys() == {"begins", "ends", "days"}
    assert form.put_rows(tree, fields.WINDOWS, []) == {}
    assert form.says(tree, fields.BEGIN)
    assert not form.says(tree, fields.LIMITS)


def test_what_is_wrong_in_the_form_is_said_by_its_name() -> None:
    with pytest.raises(UserError, match=r"gates\.max_error_rate"):
        form.policy_of(form.put({}, ("gates", "max_error_rate"), 7))


def test_the_plan_says_who_gets_what_and_who_nothing_and_why() -> None:
    def device(name: str, variant: str | None, reason: str = "") -> Any:
        return {
            "device": name, "hardware_class": "arm", "online": True, "variant": variant,
            "target": "cpu", "precision": "int8", "bytes": 1000, "full_bytes": 1000,
            "delta_bytes": 0, "cost_bytes": 1100, "budget_left": None, "in_budget": True,
            "money": 0.5 if variant else None, "reason": reason, "verification": "cpu-proxy",
        }  # fmt: skip

    plan: Any = {
        "model": "digits", "version": "1.2.0", "release": "sha256:a", "selector": "",
        "devices": [device("a", "v"), device("b", "v"), device("c", None, "too old")],
        "next": None, "fitting": 2, "unfitting": 1, "over_budget": 0, "bytes": 2000,
        "cost_bytes": 2200, "currency": "EUR", "money": 1.0,
        "by_class": {"arm": {"int8": 2, "nothing fits": 1}}, "reasons": {"too old": 1},
    }  # fmt: skip
    policy = parse_policy("[[waves]]\ncount = 1\n[[waves]]\npercent = 100\n")
    shown = plan_view(plan, policy, {"b": "digits-0"})
    assert shown.headline == (
        "digits:1.2.0 reaches 1 of 3 devices; 1 get nothing; another rollout has 1."
    )
    assert [(wave.number, wave.devices) for wave in shown.waves] == [(1, 1), (2, 0)]
    assert shown.reasons == (("too old", 1),)
    assert [line.group for line in shown.devices] == ["gets", "waits", "nothing"]
    assert shown.devices[0].gets == "cpu int8, cpu-proxy"
    assert ("Money, about", "1.00 EUR") in shown.facts
