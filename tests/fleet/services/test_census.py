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
        "devices": 0, "online": 0, "classes": [], "running": []
    }  # fmt: skip
