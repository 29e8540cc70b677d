"""The end of a device's service: revoked, forgotten, and the audit log whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from cloud_sync.commands import Command, CommandKind, CommandResult, CommandStatus
from cloud_sync.messages import decode
from cloud_sync.trust import PayloadType, key_id, open_envelope
from edgeml.errors import TrustError
from fleet.db import tables
from fleet.problem import NotFound
from fleet.services import Caller, Services, audit, commands, decommission, devices, enrollment
from tests.fleet.conftest import Clock, Device, Listening

FORGOTTEN = (
    tables.Record,
    tables.Command,
    tables.DeviceLabel,
    tables.DesiredState,
    tables.DesiredModel,
    tables.ReportedModel,
    tables.Enrollment,
)


def count(services: Services, table: type[tables.Table]) -> int:
    with services.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def furnish(services: Services, operator: Caller, device: Device) -> None:
    """Give the fleet something personal of a device."""
    source = {"name": "door", "uri": "rtsp://user:secret@10.0.0.7/door", "model": "digits"}
    devices.configure(services, operator, device.device, {"sources": [source]})
    devices.set_labels(services, operator, device.device, {"owner": "alice"})
    enrollment.create_token(services, operator, device.device, {})


def result(services: Services, device: Device) -> CommandResult:
    """What the device answers to the wipe, whose signature it verifies."""
    [envelope] = commands.pending(services, device.device)
    key = services.keys.director.public_key()
    payload = open_envelope(envelope, {key_id(key): key}, PayloadType.COMMAND)
    command = decode(payload, Command)
    assert command.kind == CommandKind.WIPE
    return CommandResult(command=command.id, kind=command.kind, status=CommandStatus.DONE)


def test_without_a_wipe_it_is_revoked_and_forgotten_at_once(
    services: Services, enroll: Callable[..., Device], operator: Caller, tmp_path: Path
) -> None:
    device = enroll(services, tmp_path, site="north")
    furnish(services, operator, device)
    before = count(services, tables.AuditEntry)
    found = decommission.decommission(services, operator, "cam-1")
    assert found["status"] == "done"
    assert devices.show(services, "cam-1")["revoked_at"] is not None
    assert [count(services, table) for table in FORGOTTEN] == [0] * len(FORGOTTEN)
    with services.database.read() as session:
        row = session.get_one(tables.Device, "cam-1")
        kept = [getattr(row, name) for name in ("configuration", "sources", "boot_id")]
    assert not any("10.0.0.7" in str(value) for value in kept)
    assert count(services, tables.AuditEntry) == before + 3
    assert audit.verify(services) == before + 3


def test_with_a_wipe_it_is_revoked_when_it_has_given_its_word(
    services: Services, enroll: Callable[..., Device], operator: Caller, tmp_path: Path
) -> None:
    device = enroll(services, tmp_path)
    furnish(services, operator, device)
    found = decommission.decommission(services, operator, "cam-1", wipe=True)
    assert (found["status"], found["command_status"]) == ("waiting", "pending")
    assert decommission.go_on(services) == 0
    assert devices.show(services, "cam-1")["revoked_at"] is None
    again = decommission.decommission(services, operator, "cam-1", wipe=True)
    assert again["command"] == found["command"]  # it is told once
    with services.database.write() as session:
        commands.keep(services, session, "cam-1", [result(services, device)])
    assert decommission.go_on(services) == 1
    assert decommission.go_on(services) == 0
    found = decommission.show(services, "cam-1")
    assert (found["status"], found["command_status"]) == ("done", "done")
    assert devices.show(services, "cam-1")["revoked_at"] is not None
    assert [count(services, table) for table in FORGOTTEN] == [0] * len(FORGOTTEN)


def test_one_that_never_answers_is_decommissioned_without(
    services: Services, enroll: Callable[..., Device], operator: Caller, tmp_path: Path
) -> None:
    enroll(services, tmp_path)
    decommission.decommission(services, operator, "cam-1", wipe=True)
    assert decommission.decommission(services, operator, "cam-1")["status"] == "done"
    assert devices.show(services, "cam-1")["revoked_at"] is not None


def test_a_wipe_that_expired_is_asked_for_anew(
    services: Services,
    enroll: Callable[..., Device],
    operator: Caller,
    tmp_path: Path,
    clock: Clock,
) -> None:
    enroll(services, tmp_path)
    first = decommission.decommission(services, operator, "cam-1", wipe=True)
    clock.now += commands.MAX_TTL_S + 1
    assert decommission.show(services, "cam-1")["command_status"] == "expired"
    assert decommission.go_on(services) == 0
    second = decommission.decommission(services, operator, "cam-1", wipe=True)
    assert second["command"] != first["command"]
    assert second["command_status"] == "pending"


def test_doing_it_again_changes_nothing(
    services: Services, enroll: Callable[..., Device], operator: Caller, tmp_path: Path
) -> None:
    enroll(services, tmp_path)
    first = decommission.decommission(services, operator, "cam-1")
    before = count(services, tables.AuditEntry)
    for wipe in (False, True):
        assert decommission.decommission(services, operator, "cam-1", wipe=wipe) == first
    assert count(services, tables.AuditEntry) == before


def test_a_device_in_service_has_no_end_to_show(
    services: Services, enroll: Callable[..., Device], operator: Caller, tmp_path: Path
) -> None:
    with pytest.raises(NotFound):
        decommission.decommission(services, operator, "nobody")
    enroll(services, tmp_path)
    with pytest.raises(NotFound, match="in service"):
        decommission.show(services, "cam-1")
    decommission.decommission(services, operator, "cam-1")
    (tmp_path / "again").mkdir()
    enroll(services, tmp_path / "again")
    with pytest.raises(NotFound, match="in service"):
        decommission.show(services, "cam-1")


def test_over_http_a_decommissioned_device_is_let_in_no_more(
    fleet: Listening, make_device: Callable[..., Device], tmp_path: Path
) -> None:
    device = make_device()
    client = device.client()
    client.hello(device.hello())
    assert fleet.client.decommission("cam-1", wipe=False)["status"] == "done"
    with pytest.raises(TrustError):
        client.hello(device.hello())
    assert fleet.client.decommissioned("cam-1")["status"] == "done"
