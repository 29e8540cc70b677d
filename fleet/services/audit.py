"""The audit log: who did what and why, append-only, each entry's hash covering the one before."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from edgeml.errors import TrustError
from fleet.db import tables
from fleet.resources import AuditInfo, Page
from fleet.services import rollout_events
from fleet.services.context import Caller, Services
from fleet.services.selection import chosen

_FIRST = "0" * 64
_MAX_PAGE = 1000


@contextmanager
def audited(
    services: Services, caller: Caller, action: str, subject: str, **detail: Any
) -> Iterator[Session]:
    """A writing session whose commit holds the entry and what it speaks of, or neither."""
    with services.database.write() as session:
        yield session
        append(services, session, caller, action, subject, **detail)
    sync_head(services)
    services.changes.announce()


def append(
    services: Services, session: Session, caller: Caller, action: str, subject: str, **detail: Any
) -> None:
    """Add an entry in a session that the caller commits; call `sync_head` after that.

    Webhooks are told of what is done with rollouts.
    """
    if action.startswith("rollout."):
        rollout_events.tell(services, session, caller, action, subject)
    services.database.one_at_a_time(session, "audit")
    last = _last(session)
    entry = tables.AuditEntry(
        seq=last.seq + 1 if last else 1,
        at=services.now(),
        actor=caller.actor,
        action=action,
        subject=subject,
        reason=caller.reason,
        detail=json.dumps(detail, sort_keys=True),
        previous_hash=last.hash if last else _FIRST,
        hash="",
    )
    entry.hash = _hash(entry)
    session.add(entry)
    session.flush()


def sync_head(services: Services) -> None:
    """Write the newest entry into the file beside the keys, where a restore is noticed by it."""
    with services.database.read() as session:
        last = _last(session)
    if last is not None:
        services.head.change(audit_seq=last.seq, audit_hash=last.hash)


@dataclass(frozen=True)
class Wanted:
    """Which entries; what is empty chooses all.

    `who` is a user with all their tokens, a token `alice/ci`, or a part of the fleet; `action` is
    one such as `rollout.pause`, or what it begins with, `rollout`; `since` and `until` are Unix
    seconds.
    """

    who: str = ""
    action: str = ""
    subject: str = ""
    since: float = 0.0
    until: float = 0.0

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """What must hold of an entry."""
        table = tables.AuditEntry
        if self.who:
            yield _done_by(self.who)
        if self.action:
            below = table.action.startswith(f"{self.action}.", autoescape=True)
            yield or_(table.action == self.action, below)
        if self.subject:
            yield table.subject == self.subject
        if self.since:
            yield table.at >= self.since
        if self.until:
            yield table.at < self.until


ALL = Wanted()


def entries(
    services: Services,
    *,
    after: int = 0,
    limit: int = 100,
    caller: Caller | None = None,
    wanted: Wanted = ALL,
) -> Page[AuditInfo]:
    """The entries, newest first; `after` is the cursor of the page before.

    A caller with a scope sees what was done with its devices and with rollouts that reach no
    further, and what they did themselves.
    """
    limit = max(1, min(limit, _MAX_PAGE))
    query = select(tables.AuditEntry).order_by(tables.AuditEntry.seq.desc()).limit(limit)
    query = query.where(*wanted.conditions())
    if after:
        query = query.where(tables.AuditEntry.seq < after)
    if caller is not None and caller.scope.requirements:
        query = query.where(_seen_by(caller))
    with services.database.read() as session:
        found = list(session.scalars(query))
    return {
        "items": [_info(entry) for entry in found],
        "next": str(found[-1].seq) if len(found) == limit else None,
    }


def verify(services: Services) -> int:
    """Check the whole chain, and return how many entries it has.

    Raises:
        TrustError: an entry was changed, removed or added later.
    """
    previous, number = _FIRST, 0
    with services.database.read() as session:
        for entry in session.scalars(select(tables.AuditEntry).order_by(tables.AuditEntry.seq)):
            number += 1
            if (entry.seq, entry.previous_hash, entry.hash) != (number, previous, _hash(entry)):
                raise TrustError(
                    f"The audit log does not hold at entry {number}.",
                    why="The entry's hash does not fit its content and the entry before.",
                )
            previous = entry.hash
    return number


def _seen_by(caller: Caller) -> ColumnElement[bool]:
    from fleet.access.scope import confined

    subject, device = tables.AuditEntry.subject, tables.Device
    devices = subject.in_(select(device.id).where(chosen(caller.scope)))
    return or_(_done_by(caller.person), devices, confined(subject, caller.scope))


def _done_by(who: str) -> ColumnElement[bool]:
    """`alice` did what her token `alice/ci` did."""
    actor = tables.AuditEntry.actor
    return or_(actor == who, actor.startswith(f"{who}/", autoescape=True))


def _last(session: Session) -> tables.AuditEntry | None:
    query = select(tables.AuditEntry).order_by(tables.AuditEntry.seq.desc()).limit(1)
    return session.scalars(query).first()


def _hash(entry: tables.AuditEntry) -> str:
    content = [entry.seq, entry.at, entry.actor, entry.action, entry.subject, entry.reason]
    text = json.dumps([*content, entry.detail, entry.previous_hash])
    return hashlib.sha256(text.encode()).hexdigest()


def _info(entry: tables.AuditEntry) -> AuditInfo:
    return {
        "seq": entry.seq,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "reason": entry.reason,
        "detail": json.loads(entry.detail),
        "previous_hash": entry.previous_hash,
        "hash": entry.hash,
    }
