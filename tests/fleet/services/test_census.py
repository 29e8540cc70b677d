from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet.rollouts.selector import parse_selector
from fleet.services import Services
from fleet.services.census import census


def test_devices_are_counted_by_class_within_the_scope(
    services: Services, enroll: Callable[..., Any], tmp_path: Path
) -> None:
    for name, site in (("cam-1", "north"), ("cam-2", "north"), ("cam-3", "south")):
        enroll(services, tmp_path, name, site=site)
    found = census(services)
    assert (found["devices"], found["online"]) == (3, 3)
    assert [one["devices"] for one in found["classes"]] == [3]
    assert found["running"] == []
    assert census(services, parse_selector("site=south"))["devices"] == 1
    assert census(services, parse_selector("site=west")) == {
        "devices": 0, "online": 0, "classes": [], "running": [], "labels": []
    }  # fmt: skip


def test_devices_are_counted_by_the_values_of_a_label_and_those_without_it(
    services: Services, enroll: Callable[..., Any], tmp_path: Path
) -> None:
    for name, labels in (("a", {"site": "north"}), ("b", {"site": "north"}), ("c", {"line": "1"})):
        enroll(services, tmp_path, name, **labels)
    assert census(services, label="site")["labels"] == [
        {"value": "north", "devices": 2, "online": 2},
        {"value": "", "devices": 1, "online": 1},
    ]
    found = census(services, parse_selector("site=north"), label="site")
    assert [one["value"] for one in found["labels"]] == ["north"]
    chosen = census(services, selector=parse_selector("line=1"), label="site")
    assert (chosen["devices"], [one["value"] for one in chosen["labels"]]) == (1, [""])
