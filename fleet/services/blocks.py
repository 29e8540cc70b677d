"""Releases that no device of a hardware class is given any more, fleet-wide, and why."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeml.errors import UserError
from fleet.db import tables
from fleet.problem import NotFound
from fleet.resources import BlockInfo
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.services import releases
from fleet.services.audit import audited
from fleet.services.columns import fit
from fleet.services.context import Caller, Services

_MAX_CLASS = 128


def blocked(session: Session, release: str) -> dict[str, str]:
    """On which hardware classes a release is blocked, and why."""
    table = tables.ReleaseBlock
    query = select(table.hardware_class, table.reason).where(table.release == release)
    return {name: reason for name, reason in session.execute(query)}  # noqa: C416 -- rows


def put(
    services: Services,
    session: Session,
    caller: Caller,
    *,
    release: str,
    hardware_class: str,
    rollout: str = "",
) -> None:
    """Block in a session that the caller commits; one that is blocked keeps its first reason."""
    if session.get(tables.ReleaseBlock, (release, hardware_class)) is None:
        session.add(
            tables.ReleaseBlock(
                release=release,
                hardware_class=hardware_class,
                rollout=rollout,
                reason=fit(caller.reason, 2000),
                blocked_at=services.now(),
                blocked_by=fit(caller.actor, 128),
            )
        )


def list_blocks(services: Services, scope: Selector = EVERYTHING) -> list[BlockInfo]:
    """All of them, the newest first; why, which may name devices, for who sees the whole fleet."""
    is_told = not scope.requirements
    table, release = tables.ReleaseBlock, tables.Release
    query = (
        select(table, release.model, release.version)
        .join(release, release.digest == table.release)
        .order_by(table.blocked_at.desc(), table.release, table.hardware_class)
    )
    with services.database.read() as session:
        return [
            {
                "model": model,
                "version": version,
                "release": row.release,
                "hardware_class": row.hardware_class,
                "reason": row.reason if is_told else "",
                "rollout": row.rollout if is_told else "",
                "blocked_at": row.blocked_at,
                "blocked_by": row.blocked_by,
            }
            for row, model, version in session.execute(query)
        ]


def block(
    services: Services, caller: Caller, model: str, version: str, hardware_class: str
) -> list[BlockInfo]:
    """Give a release to no device of a hardware class any more.

    Raises:
        UserError: there is no written reason, or no class.
        NotFound: the release is not registered.
    """
    _require_reason(caller)
    if not 0 < len(hardware_class) <= _MAX_CLASS:
        raise UserError("The hardware class cannot be used.", why="It is empty or too long.")
    with services.database.read() as session:
        digest = releases.require(session, model, version).digest
    subject = f"{model}:{version} on {hardware_class}"
    with audited(services, caller, "release.block", subject, release=digest) as session:
        put(services, session, caller, release=digest, hardware_class=hardware_class)
    return list_blocks(services)


def unblock(
    services: Services, caller: Caller, model: str, version: str, hardware_class: str
) -> list[BlockInfo]:
    """Let devices of a hardware class have a release again.

    Raises:
        UserError: there is no written reason.
        NotFound: it is not blocked there.
    """
    _require_reason(caller)
    with services.database.read() as session:
        digest = releases.require(session, model, version).digest
    subject = f"{model}:{version} on {hardware_class}"
    with audited(services, caller, "release.unblock", subject, release=digest) as session:
        row = session.get(tables.ReleaseBlock, (digest, hardware_class))
        if row is None:
            raise NotFound(
                f"{model}:{version} is not blocked on {hardware_class[:_MAX_CLASS]!r}.",
                fix="See what is: edgeml rollout blocks",
            )
        session.delete(row)
    return list_blocks(services)


def _require_reason(caller: Caller) -> None:
    if not caller.reason.strip():
        raise UserError(
            "A reason is needed.", why="It is kept in the audit log.", fix="Write it with --why."
        )
