"""Commands to devices: signed by the director, kept until the device says what became of them.

A command is published on the bus once, when it is made; a device that misses it there is given
it at its next hello over HTTPS, until it has answered or the command has expired. The device's
first answer stands: it comes through the outbox, and so may come twice.
"""

import secrets
from collections.abc import Sequence

import msgspec
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from cloud_sync.commands import Command, CommandKind, CommandResult
from cloud_sync.messages import Down, encode, topic
from cloud_sync.trust import PayloadType, sign
from edgeml.errors import UserError
from fleet.db import tables
from fleet.problem import Conflict, NotFound
from fleet.resources import CommandInfo
from fleet.services.audit import audited
from fleet.services.columns import fit
from fleet.services.context import Caller, Services

DEFAULT_TTL_S = 3600.0
MAX_TTL_S = 30 * 86400.0
MAX_PENDING = 20
MAX_KEPT = 100
PENDING = "pending"
EXPIRED = "expired"
_MAX_LINES = 2000
_MAX_SOURCE = 256


def create(
    services: Services,
    caller: Caller,
    device: str,
    kind: str,
    *,
    source: str = "",
    lines: int = 200,
    ttl_s: float = DEFAULT_TTL_S,
) -> CommandInfo:
    """Sign a command for a device and send it.

    Args:
        services: the fleet.
        caller: who and why.
        device: its id.
        kind: a `CommandKind`.
        source: whose frame a snapshot is of; empty for the first source.
        lines: how many lines of the log.
        ttl_s: seconds after which the device refuses it.

    Raises:
        UserError: the kind, the time or the number of lines is not allowed.
        NotFound: there is no such device.
        Conflict: the device is revoked, or too many commands wait for it.
    """
    _check(kind, source, lines, ttl_s)
    name, now = secrets.token_hex(16), services.now()
    command = Command(
        device=device,
        id=name,
        kind=kind,
        issued_at=now,
        expires_at=now + ttl_s,
        source=source,
        lines=lines,
    )
    envelope = sign(encode(command), PayloadType.COMMAND, services.keys.director)
    with audited(services, caller, f"device.{kind}", device, command=name) as session:
        # Whoever commands the same device waits here, so that the bound holds.
        row = session.get(tables.Device, device, with_for_update={"key_share": True})
        if row is None:
            raise _no_device(device)
        if row.revoked_at is not None:
            raise Conflict(
                f"{device} cannot be commanded.",
                why="It is revoked.",
                fix=f"Enrol it again: edgeml fleet enroll {device}",
            )
        _make_room(session, device, now)
        session.add(
            tables.Command(
                id=name,
                device=device,
                kind=kind,
                created_at=now,
                created_by=fit(caller.actor, 128),
                expires_at=command.expires_at,
                envelope=envelope,
                status=PENDING,
                result=b"",
            )
        )
    services.publisher(topic(device, Down.COMMAND), envelope, expires_s=ttl_s)
    return show(services, device, name)


def pending(services: Services, device: str) -> list[bytes]:
    """The envelopes of what a device has not answered and may still do, oldest first."""
    with services.database.read() as session:
        rows = session.scalars(_pending(device, services.now()))
        return [row.envelope for row in rows]


def number_pending(services: Services, device: str) -> int:
    """How many commands wait for a device."""
    with services.database.read() as session:
        return _number_pending(session, device, services.now())


def keep(
    services: Services, session: Session, device: str, results: Sequence[CommandResult]
) -> None:
    """Keep what a device says of its commands, in the session that stores its records.

    Raises nothing: an answer to what was never asked, or a second one, is counted.
    """
    for result in results:
        row = session.get(tables.Command, fit(result.command, 64), with_for_update=True)
        if row is None or row.device != device or row.status != PENDING:
            services.counters.add("commands.stray-results")
            continue
        row.status = str(result.status)
        row.finished_at = services.now()
        row.result = encode(result)
        services.counters.add(f"commands.{result.status}")


def show(services: Services, device: str, command: str) -> CommandInfo:
    """One command, with what it brought.

    Raises:
        NotFound: there is none of that id for that device.
    """
    with services.database.read() as session:
        row = session.get(tables.Command, command[:64])
        if row is None or row.device != device:
            raise NotFound(
                f"There is no command {command[:64]!r} for {device[:64]!r}.",
                fix=f"See them all: edgeml devices command list {device[:64]}",
            )
        return _info(row, services.now(), whole=True)


def list_commands(services: Services, device: str) -> list[CommandInfo]:
    """The commands to a device, newest first, without the content that they brought.

    Raises:
        NotFound: there is no such device.
    """
    table = tables.Command
    with services.database.read() as session:
        if session.get(tables.Device, device) is None:
            raise _no_device(device)
        query = select(table).where(table.device == device).order_by(table.created_at.desc())
        rows = session.scalars(query.limit(MAX_KEPT))
        return [_info(row, services.now(), whole=False) for row in rows]


def _check(kind: str, source: str, lines: int, ttl_s: float) -> None:
    kinds = [str(each) for each in CommandKind]
    if kind not in kinds:
        raise UserError(f"{kind[:64]!r} is no command.", why=f"A device knows: {', '.join(kinds)}.")
    if not 0 < ttl_s <= MAX_TTL_S:
        raise UserError(
            f"A command cannot expire after {ttl_s:g} s.",
            why=f"Allowed is above 0 and up to {MAX_TTL_S:.0f}.",
        )
    if not 1 <= lines <= _MAX_LINES:
        raise UserError(f"{lines} lines cannot be asked for.", why=f"The most is {_MAX_LINES}.")
    if len(source) > _MAX_SOURCE:
        raise UserError("The source's name is too long.")


def _pending(device: str, now: float) -> "Select[tables.Command]":
    table = tables.Command
    return (
        select(table)
        .where(table.device == device, table.status == PENDING, table.expires_at > now)
        .order_by(table.created_at)
    )


def _number_pending(session: Session, device: str, now: float) -> int:
    query = select(func.count()).select_from(_pending(device, now).order_by(None).subquery())
    return session.scalar(query) or 0


def _make_room(session: Session, device: str, now: float) -> None:
    """Forget the oldest commands of a device beyond what is kept.

    Raises:
        Conflict: too many wait.
    """
    if _number_pending(session, device, now) >= MAX_PENDING:
        raise Conflict(
            f"{MAX_PENDING} commands wait for {device}.",
            why="It has not answered them.",
            fix="See whether it is online: edgeml devices show; they expire by themselves.",
        )
    table = tables.Command
    query = select(table).where(table.device == device).order_by(table.created_at.desc())
    for row in session.scalars(query.offset(MAX_KEPT - 1)):
        session.delete(row)


def _info(row: tables.Command, now: float, *, whole: bool) -> CommandInfo:
    result = msgspec.json.decode(row.result, type=CommandResult) if row.result else None
    is_late = row.status == PENDING and row.expires_at <= now
    return {
        "id": row.id,
        "device": row.device,
        "kind": row.kind,
        "status": EXPIRED if is_late else row.status,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "expires_at": row.expires_at,
        "finished_at": row.finished_at,
        "reason": result.reason if result else "",
        "seconds": result.seconds if result else 0.0,
        "media_type": result.media_type if result else "",
        "base64": result.base64 if result else False,
        "content": result.content if result and whole else "",
    }


def _no_device(device: str) -> NotFound:
    return NotFound(f"There is no device {device[:64]!r}.", fix="See them: edgeml devices list")
