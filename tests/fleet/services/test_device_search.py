"""Devices are found in the database by all that a page can ask for, within a scope."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeml.errors import UserError
from fleet.db import tables
from fleet.problem import Forbidden, NotFound
from fleet.roles import Role
from fleet.rollouts.selector import parse_selector
from fleet.services import Caller, Services, audit, device_labels, device_search, devices
from fleet.services.device_search import Wanted

NORTH = parse_selector("site=north")


@pytest.fixture
def three(services: Services, tmp_path: Path, enroll: Callable[..., object]) -> Services:
    """cam-1 and cam-2 in the north, cam-3 in the south; cam-1 runs digits:1.0.0."""
    for name, site in (("cam-1", "north"), ("cam-2", "north"), ("cam-3", "south")):
        enroll(services, tmp_path, name, site=site)
    with services.database.write() as session:
        session.get_one(tables.Device, "cam-2").online = False
        session.get_one(tables.Device, "cam-3").revoked_at = services.now()
        running = dict.fromkeys(("running_release", "running_variant", "release", "variant"), "")
        session.add(
            tables.ReportedModel(
                device="cam-1", model="digits", phase="rolled_back", running_version="1.0.0",
                release_version="1.1.0", rollout="", attempt=1, reason="", stream="s", at=0.0,
                **running,
            )
        )  # fmt: skip
    return services


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), ["cam-1", "cam-2", "cam-3"]),
        (Wanted(selector="site=north"), ["cam-1", "cam-2"]),
        (Wanted(name="m-3"), ["cam-3"]),
        (Wanted(name="%"), []),
        (Wanted(state="online"), ["cam-1", "cam-3"]),
        (Wanted(state="offline"), ["cam-2"]),
        (Wanted(state="revoked"), ["cam-3"]),
        (Wanted(hardware_class="x86_64-avx512_vnni-2c", selector="site!=north"), ["cam-3"]),
        (Wanted(model="digits", version="1.0.0"), ["cam-1"]),
        (Wanted(model="faces", version="1.0.0"), []),
        (Wanted(phase="rolled_back"), ["cam-1"]),
    ],
)
def test_what_is_asked_for_is_found_and_counted(
    three: Services, wanted: Wanted, found: list[str]
) -> None:
    assert device_search.names(three, wanted) == found
    assert device_search.count(three, wanted) == len(found)
    page = device_search.find(three, wanted)
    assert [info["device"] for info in page["items"]] == found


def test_a_scope_hides_what_is_outside(three: Services) -> None:
    assert device_search.names(three, Wanted(), NORTH) == ["cam-1", "cam-2"]
    assert device_search.count(three, Wanted(), NORTH) == 2
    assert device_search.find(three, Wanted(name="cam-3"), scope=NORTH)["items"] == []


def test_pages_follow_one_another(three: Services) -> None:
    first = device_search.find(three, Wanted(), limit=2)
    assert first["next"] == "cam-2"
    assert [d["device"] for d in device_search.find(three, Wanted(), after="cam-2")["items"]] == [
        "cam-3"
    ]


def test_an_unknown_state_says_which_there_are(three: Services) -> None:
    with pytest.raises(UserError, match="online, offline, revoked"):
        device_search.count(three, Wanted(state="asleep"))


def test_labels_of_several_are_changed_together_and_audited_one_by_one(three: Services) -> None:
    caller = Caller("alice", "moved")
    assert device_labels.change(three, caller, ["cam-1", "cam-3"], {"line": "3"}, ["site"]) == 2
    assert devices.labels(three, "cam-1") == devices.labels(three, "cam-3") == {"line": "3"}
    assert device_labels.change(three, caller, ["cam-1"], {"line": "3"}) == 0
    said = [e for e in audit.entries(three)["items"] if e["action"] == "device.label"]
    assert [(e["subject"], e["reason"]) for e in said] == [("cam-3", "moved"), ("cam-1", "moved")]
    assert audit.verify(three) > 0


def test_labels_are_changed_whole_or_not_at_all_within_a_scope(three: Services) -> None:
    caller = Caller("bob", "", Role.OPERATOR, NORTH)
    with pytest.raises(Forbidden):
        device_labels.change(three, caller, ["cam-1", "cam-2"], {"site": "south"})
    with pytest.raises(NotFound):
        device_labels.change(three, caller, ["cam-1", "cam-3"], {"line": "3"})
    assert devices.labels(three, "cam-1") == {"site": "north"}
