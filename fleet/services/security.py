"""Security events: what was refused, kept so that a person can see it."""

import logging
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloud_sync.messages import SecurityRecord, UnknownVersion
from cloud_sync.trust import PayloadType, open_envelope
from cloud_sync.trust.keys import load_public
from edgeml.errors import RemoteError, TrustError
from fleet.db import tables
from fleet.resources import Page, SecurityEventInfo
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.services.columns import fit
from fleet.services.context import Services
from fleet.services.selection import chosen

_EVERY_S = 5.0
_OVERTAKEN_S = 600.0
_VERSION_EVERY_S = 3600.0
_MAX_DETAIL = 500
_MAX_PAGE = 1000
_MAX_OF_A_DEVICE = 1000
_LOG = logging.getLogger(__name__)


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


def forged(
    services: Services,
    kind: str,
    device: str,
    error: TrustError,
    *,
    envelope: bytes,
    payload: PayloadType,
) -> None:
    """Keep the event of an envelope that was refused; not of one that a renewal has overtaken.

    What a device had signed with its key of before is refused, too: it says it again.
    """
    if _is_overtaken(services, device, envelope, payload):
        services.counters.add("ingest.overtaken")
    else:
        record(services, kind, device, str(error))


def _is_overtaken(services: Services, device: str, envelope: bytes, payload: PayloadType) -> bool:
    """Whether it is by a key of this enrolment that was renewed a moment ago."""
    table = tables.DeviceKey
    with services.database.read() as session:
        row = session.get(tables.Device, device)
        if row is None:
            return False
        keys = session.scalars(
            select(table).where(table.device == device, table.since >= row.enrolled_at)
        ).all()
    renewed = max((key.since for key in keys), default=0.0)
    before = {key.key_id: load_public(key.public_key) for key in keys if key.key_id != row.key_id}
    if not before or services.now() > renewed + _OVERTAKEN_S:
        return False
    try:
        open_envelope(envelope, before, payload)
    except TrustError:
        return False
    return True


def unreadable(services: Services, device: str, error: RemoteError) -> None:
    """Count a message that cannot be read; one of another version is said now and then."""
    if not isinstance(error, UnknownVersion):
        services.counters.add("ingest.malformed")
        return
    services.counters.add("ingest.unknown-version")
    if services.counters.is_due(f"version {device[:64]}", _VERSION_EVERY_S):
        _LOG.warning("%s speaks another version than this fleet: %s", device[:64], error)


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


def events(
    services: Services, *, after: int = 0, limit: int = 100, scope: Selector = EVERYTHING
) -> Page[SecurityEventInfo]:
    """The events of a scope's devices, newest first."""
    limit = max(1, min(limit, _MAX_PAGE))
    table = tables.SecurityEvent
    query = select(table).where(chosen(scope, table.device)).order_by(table.id.desc()).limit(limit)
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
