"""Changes of a layer in waves: the real controller, devices that answer as an agent does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud_sync.messages import Configuration, DesiredState, encode
from cloud_sync.trust import PayloadType, sign
from edgeml.errors import UserError
from fleet.controller import Controller
from fleet.db import tables
from fleet.problem import Conflict
from fleet.rollouts import parse_policy
from fleet.services import (
    Services,
    configuration_changes,
    configuration_shown,
    devices,
    recovery,
    reported,
    rollouts,
)
from fleet.services.configuration_changes import Change

POLICY = "soak_s = 0\n[[waves]]\ncount = 1\n[[waves]]\npercent = 100\n"


@dataclass
class Follower:
    """A device that tries what it is told, and says so at its next hello; `refuses` why not."""

    services: Services
    device: Any
    refuses: str = ""
    committed: int = 0
    state: DesiredState | None = None

    def turn(self) -> Configuration:
        """Say hello, take what comes, and say what became of it."""
        self._hello(self._error())
        if not self.refuses and self.state is not None:
            self.committed = self.state.configuration.config_version
        self._hello(self._error())
        return self.state.configuration if self.state is not None else Configuration()

    def _error(self) -> str:
        told = self.state.configuration.config_version if self.state is not None else 0
        return self.refuses if told > self.committed else ""

    def _hello(self, error: str) -> None:
        hello = self.device.hello()
        said = msgspec.structs.replace(
            hello.reported, config_version=self.committed, config_error=error
        )
        hello = msgspec.structs.replace(hello, reported=said)
        signed = sign(encode(hello), PayloadType.HELLO, self.device.key)
        name = self.device.device
        self.state = self.device.take(reported.hello(self.services, name, signed)) or self.state


@pytest.fixture
def followers(
    services: Services, tmp_path: Path, enroll: Callable[..., Any]
) -> dict[str, Follower]:
    return {
        name: Follower(services, enroll(services, tmp_path, name, site="north"))
        for name in ("cam-1", "cam-2", "cam-3")
    }


def begin(services: Services, operator: Any, layer: str, said: Any, **more: Any) -> Any:
    asked = Change(layer=layer, settings=said, **more)
    return configuration_changes.begin(services, operator, asked, parse_policy(POLICY))


def settle(controller: Controller) -> None:
    while controller.tick():
        pass
    assert "controller.faults" not in controller._services.counters.all()


def run(controller: Controller, followers: dict[str, Follower], turns: int = 4) -> None:
    for _ in range(turns):
        settle(controller)
        for follower in followers.values():
            follower.turn()
    settle(controller)


def every_s(services: Services) -> dict[str, float]:
    """What is wanted of each device."""
    with services.database.read() as session:
        return {
            row.id: msgspec.json.decode(row.configuration, type=Configuration).telemetry_every_s
            for row in session.query(tables.Device)
        }


def test_a_change_reaches_one_device_then_all_and_then_holds(
    services: Services, controller: Controller, followers: dict[str, Follower], operator: Any
) -> None:
    made = begin(services, operator, "north", {"telemetry_every_s": 5.0}, selector="site=north")
    assert (made["layer"], made["number"], made["changed"]) == ("north", 1, 3)
    settle(controller)
    assert sorted(every_s(services).values()) == [5.0, 10.0, 10.0]
    assert configuration_changes.layer(services, "north")["number"] == 0
    run(controller, followers)
    shown = rollouts.show(services, made["rollout"])
    assert shown["status"] == "completed", shown["sentence"]
    assert {f.turn().telemetry_every_s for f in followers.values()} == {5.0}
    assert configuration_changes.layer(services, "north")["number"] == 1
    with services.database.read() as session:
        assert session.query(tables.ConfigurationPin).count() == 0


def test_a_device_that_refuses_halts_it_with_its_reason_and_all_get_back_what_they_had(
    services: Services, controller: Controller, followers: dict[str, Follower], operator: Any
) -> None:
    first = begin(services, operator, "fleet", {"telemetry_every_s": 60.0})
    run(controller, followers)
    for follower in followers.values():
        follower.refuses = "the source 'belt': there is no such file"
    second = begin(services, operator, "fleet", {"telemetry_every_s": 1.0})
    run(controller, followers, 2)
    shown = rollouts.show(services, second["rollout"])
    assert shown["status"] == "halted"
    assert "there is no such file" in shown["reason"]
    assert set(every_s(services).values()) == {60.0}
    for follower in followers.values():
        follower.refuses = ""
    assert {f.turn().telemetry_every_s for f in followers.values()} == {60.0}
    layer = configuration_changes.layer(services, "fleet")
    assert (layer["number"], layer["settings"]) == (1, {"telemetry_every_s": 60.0})
    assert [r["rollout"] for r in layer["revisions"]] == [second["rollout"], first["rollout"]]


@pytest.mark.sqlite
def test_an_abort_gives_back_the_former_configuration(
    services: Services, controller: Controller, followers: dict[str, Follower], operator: Any
) -> None:
    made = begin(services, operator, "fleet", {"telemetry_every_s": 5.0})
    settle(controller)
    assert 5.0 in every_s(services).values()
    rollouts.abort(services, operator, made["rollout"])
    run(controller, followers, 1)
    assert set(every_s(services).values()) == {10.0}
    assert configuration_changes.layer(services, "fleet")["number"] == 0


@pytest.mark.sqlite
def test_a_device_that_a_narrower_layer_keeps_is_not_touched(
    services: Services, controller: Controller, followers: dict[str, Follower], operator: Any
) -> None:
    devices.configure(services, operator, "cam-1", {"telemetry_every_s": 2.0})
    asked = Change(layer="fleet", settings={"telemetry_every_s": 5.0})
    plan = configuration_changes.plan(services, asked)
    assert plan["counts"] == {"changed": 2, "same": 1, "unfit": 0}
    assert plan["devices"][1]["changes"] == [
        {"key": "telemetry_every_s", "before": None, "after": 5.0}
    ]
    page = configuration_changes.plan(services, asked, after="cam-1", limit=1)
    assert ([d["device"] for d in page["devices"]], page["next"]) == (["cam-2"], "cam-2")
    begin(services, operator, "fleet", {"telemetry_every_s": 5.0})
    version = configuration_shown.show(services, "cam-1")["version"]
    run(controller, followers)
    assert every_s(services) == {"cam-1": 2.0, "cam-2": 5.0, "cam-3": 5.0}
    assert configuration_shown.show(services, "cam-1")["version"] == version


@pytest.mark.sqlite
def test_a_device_that_joins_late_gets_what_holds_and_then_its_turn(
    services: Services,
    controller: Controller,
    followers: dict[str, Follower],
    operator: Any,
    enroll: Callable[..., Any],
    tmp_path: Path,
) -> None:
    begin(services, operator, "fleet", {"telemetry_every_s": 5.0})
    settle(controller)
    late = Follower(services, enroll(services, tmp_path, "cam-9", site="north"))
    assert every_s(services)["cam-9"] == 10.0
    run(controller, followers | {"cam-9": late})
    assert set(every_s(services).values()) == {5.0}
    enroll(services, tmp_path, "cam-10", site="north")
    assert every_s(services)["cam-10"] == 5.0


def test_one_layer_is_in_one_rollout_and_a_device_in_one_of_configurations(
    services: Services, controller: Controller, followers: dict[str, Follower], operator: Any
) -> None:
    begin(services, operator, "fleet", {"telemetry_every_s": 5.0})
    with pytest.raises(Conflict, match="is being rolled out"):
        begin(services, operator, "fleet", {"telemetry_every_s": 6.0})
    other = begin(services, operator, "north", {"max_download_bytes_s": 7}, selector="site=north")
    settle(controller)
    with services.database.read() as session:
        places = session.query(tables.Assignment.device).all()
    assert len({device for (device,) in places}) == len(places)
    run(controller, followers, 6)
    assert rollouts.show(services, other["rollout"])["status"] == "completed"
    told = [follower.turn() for follower in followers.values()]
    assert {(c.telemetry_every_s, c.max_download_bytes_s) for c in told} == {(5.0, 7)}


def test_it_goes_on_after_a_restart_at_any_point(
    services: Services,
    followers: dict[str, Follower],
    operator: Any,
    backups: Any,
) -> None:
    made = begin(services, operator, "fleet", {"telemetry_every_s": 5.0})
    for _ in range(8):
        services = backups.restart(services)
        assert recovery.frozen(services) == ""
        Controller(services).tick()
        for follower in followers.values():
            follower.services = services
            follower.turn()
    assert rollouts.show(services, made["rollout"])["status"] == "completed"
    assert set(every_s(services).values()) == {5.0}
    services.database.close()


@pytest.mark.sqlite
def test_the_policy_chooses_no_devices_of_its_own(services: Services, operator: Any) -> None:
    asked = Change(layer="fleet", settings={})
    with pytest.raises(UserError, match="selector cannot be used"):
        configuration_changes.begin(services, operator, asked, parse_policy('selector = "a=b"'))
