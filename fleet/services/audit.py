"""The audit log: who did what and why, append-only, each entry's hash covering the one before."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeml.errors import TrustError
from fleet.db import tables
from fleet.resources import AuditInfo, Page
from fleet.services.context import Caller, Services

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
    """Add an entry in a session that the caller commits; call `sync_head` after that."""
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


def entries(services: Services, *, after: int = 0, limit: int = 100) -> Page[AuditInfo]:
    """The entries, newest first; `after` is the cursor of the page before."""
    limit = max(1, min(limit, _MAX_PAGE))
    query = select(tables.AuditEntry).order_by(tables.AuditEntry.seq.desc()).limit(limit)
    if after:
        query = query.where(tables.AuditEntry.seq < after)
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
