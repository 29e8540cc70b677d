"""The end of a device's service: wiped if it is asked for and can be reached, revoked, forgotten.

What it had sent of where it stands goes: telemetry, captured frames, snapshots and logs, its
labels, addresses in its configuration. What proves a rollout stays: its evidence and keys, and the
audit log whole.

With a wipe the device gets a signed command first, and is revoked when it has acknowledged it; it
then deletes its keys, releases and outbox. One that never answers is decommissioned without.
"""

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cloud_sync.commands import CommandKind
from cloud_sync.messages import Configuration
from fleet.db import tables
from fleet.problem import NotFound
from fleet.resources import DecommissionInfo
from fleet.services import commands, configuration, identity, rollups
from fleet.services.audit import append, audited
from fleet.services.context import Caller, Services

WAITING = "waiting"
DONE = "done"
# A wipe that the device took up has begun, and is not taken back.
_ANSWERED = frozenset({"done"})


def decommission(
    services: Services, caller: Caller, device: str, *, wipe: bool = False
) -> DecommissionInfo:
    """End a device's service; without a wipe at once, also where one had been waited for.

    Doing it again changes nothing, but that a wipe is asked for anew where it expired or failed.

    Args:
        services: the fleet.
        caller: who and why.
        device: its id.
        wipe: have the device delete its data, and wait for its word.

    Raises:
        NotFound: there is no such device.
        Conflict: too many commands wait for it.
    """
    with services.database.read() as session:
        row = _device(session, device)
        before = session.get(tables.Decommission, device)
    if before is not None and before.finished_at is not None and row.revoked_at is not None:
        return show(services, device)
    if not wipe or row.revoked_at is not None:
        _begun(services, caller, device, "", "")
        _finish(services, caller, device)
        return show(services, device)
    if before is None or before.finished_at is not None or _status(services, before) != "pending":
        sent = commands.create(services, caller, device, CommandKind.WIPE, ttl_s=commands.MAX_TTL_S)
        _begun(services, caller, device, sent["id"], sent["status"])
    return show(services, device)


def show(services: Services, device: str) -> DecommissionInfo:
    """Where it stands.

    Raises:
        NotFound: there is no such device, or it was never decommissioned.
    """
    with services.database.read() as session:
        is_revoked = _device(session, device).revoked_at is not None
        row = session.get(tables.Decommission, device)
    if row is None or (row.finished_at is not None and not is_revoked):
        raise NotFound(
            f"{device} is in service.", fix=f"End it: edgeml devices decommission {device}"
        )
    return {
        "device": device,
        "status": WAITING if row.finished_at is None else DONE,
        "began_at": row.began_at,
        "finished_at": row.finished_at,
        "command": row.command,
        "command_status": _status(services, row),
    }


def go_on(services: Services) -> int:
    """Finish what waited for a device's word and has it; returns how many."""
    table = tables.Decommission
    with services.database.read() as session:
        rows = list(session.scalars(select(table).where(table.finished_at.is_(None))))
    due = [row for row in rows if not row.command or _status(services, row) in _ANSWERED]
    for row in due:
        _finish(services, Caller(row.began_by), row.device)
    return len(due)


def _begun(services: Services, caller: Caller, device: str, command: str, status: str) -> None:
    with audited(services, caller, "device.decommission", device, wipe=bool(command)) as session:
        session.merge(
            tables.Decommission(
                device=device,
                began_at=services.now(),
                began_by=caller.actor[:128],
                command=command,
                command_status=status,
                finished_at=None,
            )
        )


def _finish(services: Services, caller: Caller, device: str) -> None:
    """Revoke and forget; done again after a crash in between."""
    with services.database.read() as session:
        status = _status(services, session.get_one(tables.Decommission, device))
    identity.revoke(services, caller, device)
    services.samples.forget(device)  # may take long: not while the database waits for it
    with services.database.write() as session:
        _forget(session, device)
        row = session.get_one(tables.Decommission, device)
        row.command_status = status
        row.finished_at = services.now()
        append(services, session, caller, "device.forget", device)
    services.changes.announce()


def _forget(session: Session, device: str) -> None:
    """Delete what may speak of people: what was seen, where it is, what it was called."""
    row = session.get_one(tables.Device, device, with_for_update=True)
    for table in (
        tables.Record,
        tables.Sample,
        tables.DeviceRollUp,
        tables.Command,
        tables.DeviceLabel,
        tables.DesiredState,
        tables.DesiredModel,
        tables.ReportedModel,
        tables.Enrollment,
    ):
        session.execute(delete(table).where(table.device == device))
    rollups.forgot(session)
    configuration.forget(session, device)
    row.configuration = msgspec.json.encode(Configuration()).decode()
    row.sources, row.config_error, row.boot_id = "{}", "", ""
    row.online = False


def _status(services: Services, row: tables.Decommission) -> str:
    """The status of the wipe; as it was last known where the command is forgotten."""
    if not row.command:
        return ""
    try:
        return commands.show(services, row.device, row.command)["status"]
    except NotFound:
        return row.command_status


def _device(session: Session, device: str) -> tables.Device:
    row = session.get(tables.Device, device)
    if row is None:
        raise NotFound(
            f"There is no device {device[:64]!r}.", fix="See them all: edgeml devices list"
        )
    return row
