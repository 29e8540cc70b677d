"""Security events: what was refused, kept so that a person can see it."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloud_sync.messages import SecurityRecord
from fleet.db import tables
from fleet.resources import Page, SecurityEventInfo
from fleet.services.columns import fit
from fleet.services.context import Services

_EVERY_S = 5.0
_MAX_DETAIL = 500
_MAX_PAGE = 1000
_MAX_OF_A_DEVICE = 1000


def record(services: Services, kind: str, device: str, detail: str) -> None:
    """Count an event, and keep it: of one kind and device at most one in some seconds.

    Whoever floods the fleet with forgeries shall not fill its disk.
    """
    services.counters.add(f"security.{kind}")
    if not services.counters.is_due(f"{kind} {device[:64]}", _EVERY_S):
        return
    with services.database.write() as session:
        session.add(
            tables.SecurityEvent(
                at=services.now(),
                device=fit(device, 64),
                kind=kind,
                detail=fit(detail, _MAX_DETAIL),
            )
        )
    services.changes.announce()


def keep(
    services: Services, session: Session, device: str, records: Sequence[SecurityRecord]
) -> None:
    """Keep what a device refused, in the session that stores its records.

    All are counted; of one device a bounded number is kept, should it be what floods the fleet.
    """
    event = tables.SecurityEvent
    known = select(func.count()).select_from(event).where(event.device == device)
    room = max(0, _MAX_OF_A_DEVICE - (session.scalar(known) or 0))
    for record in records:
        services.counters.add(f"security.{record.kind}")
    for record in records[:room]:
        session.add(
            event(
                at=services.now(),
                device=device,
                kind=str(record.kind),
                detail=fit(record.detail, _MAX_DETAIL),
            )
        )


def events(services: Services, *, after: int = 0, limit: int = 100) -> Page[SecurityEventInfo]:
    """The events, newest first."""
    limit = max(1, min(limit, _MAX_PAGE))
    query = select(tables.SecurityEvent).order_by(tables.SecurityEvent.id.desc()).limit(limit)
    if after:
        query = query.where(tables.SecurityEvent.id < after)
    with services.database.read() as session:
        found = list(session.scalars(query))
    return {
        "items": [
            {"id": e.id, "at": e.at, "device": e.device, "kind": e.kind, "detail": e.detail}
            for e in found
        ],
        "next": str(found[-1].id) if len(found) == limit else None,
    }
