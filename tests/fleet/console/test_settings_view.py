"""Data budgets as the page of settings words them, plans their change and sends it."""

from typing import Any

import pytest

from cloud_sync.messages import DataBudget
from fleet.configuration_resources import ConfigurationPlan, LayerInfo
from fleet.console.views import settings as view
from fleet.settings import parse_settings

GIVEN = {"month_mb": None, "rollout_mb": None, "month_begins": 1, "when_spent": "wait"}


def layer(name: str, selector: str = "", **settings: Any) -> LayerInfo:
    return {
        "layer": name, "kind": "label" if selector else "fleet", "selector": selector,
        "priority": 0, "number": 1, "settings": settings, "revisions": [],
    }  # fmt: skip


def test_the_fleets_budget_is_there_before_anybody_set_it() -> None:
    north = layer("north", "site=north", data_budget={"month_bytes": 40_000_000})
    fleet, label = view.budgets([north])
    assert (fleet.layer, fleet.whom, fleet.text) == ("fleet", "all devices", "no bound")
    assert (label.whom, label.text, label.month_mb) == ("site=north", "a month 40 MB", 40.0)


def test_a_layer_without_a_budget_has_no_bound() -> None:
    (line,) = view.budgets([layer("fleet", telemetry_every_s=5.0)])
    assert (line.text, line.month_mb, line.when_spent) == ("no bound", None, "wait")


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        ({}, None),
        ({"month_begins": 15}, None),
        ({"month_mb": 0}, DataBudget(month_bytes=0)),
        ({"month_mb": 0.5, "month_begins": 15}, DataBudget(month_bytes=500_000, month_begins=15)),
        ({"rollout_mb": 12.0, "when_spent": "refuse"},
         DataBudget(rollout_bytes=12_000_000, when_spent="refuse")),
    ],
)  # fmt: skip
def test_what_is_filled_in_is_what_devices_are_told(
    given: dict[str, Any], budget: DataBudget | None
) -> None:
    made = view.with_budget({"telemetry_every_s": 5.0, "data_budget": {}}, {**GIVEN, **given})
    assert parse_settings(made) == made
    said = made.pop("data_budget", None)
    assert made == {"telemetry_every_s": 5.0}
    assert (None if said is None else DataBudget(**said)) == budget


def test_a_plan_says_how_many_devices_are_given_it_and_which_cannot_have_it_why() -> None:
    plan: ConfigurationPlan = {
        "layer": "fleet", "selector": "", "priority": 0, "next": None, "by_class": {},
        "devices": [{"device": "cam-1", "hardware_class": "x", "changes": [], "fits": False,
                     "reason": "too old"}],
        "counts": {"changed": 1, "same": 2, "unfit": 1},
    }  # fmt: skip
    assert view.planned(plan) == [
        "1 device is given it, in waves.",
        "2 devices have it by now.",
        "1 device cannot have it: too old",
    ]
