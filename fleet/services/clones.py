"""Two machines that use one device's key: noticed by a boot that goes on after a later one began.

A boot's id is random and its hellos count up, so a boot that a later one has followed is over: it
says no more. What comes of it still was on its way; but a machine that was copied, with its key
and its outbox, goes on, and its hellos count further up each time.
"""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cloud_sync.messages import Hello
from fleet.db import tables
from fleet.services.columns import fit
from fleet.services.context import Services

RETURNS = 3
KIND = "cloned-key"
_KEPT = 8
_MAX_COUNTER = 2**62
_EVERY_S = 3600.0


def is_of_an_older_boot(
    services: Services, session: Session, row: tables.Device, said: Hello
) -> bool:
    """Note which boot a hello is of; whether it is one that a later boot has followed.

    From the `RETURNS`-th time that an older boot has said something new it is a security event,
    and no longer taken for late: which of the two is the real one, nobody can tell.
    """
    boot, counter = fit(said.boot_id, 128), max(0, min(said.counter, _MAX_COUNTER))
    now = services.now()
    known = session.get(tables.DeviceBoot, (row.id, boot))
    if known is None:
        known = tables.DeviceBoot(device=row.id, boot_id=boot, counter=0, returns=0, last_at=now)
        session.add(known)
        session.flush()
        _forget(session, row.id)
    is_new, is_older = counter > known.counter, row.boot_id not in {"", boot} and known.counter > 0
    known.counter = max(known.counter, counter)
    known.last_at = now
    if not is_older:
        return False
    if is_new:
        known.returns += 1
    if known.returns < RETURNS:
        return True
    if is_new:
        _tell(services, session, row.id)
    return not is_new


def _tell(services: Services, session: Session, device: str) -> None:
    services.counters.add(f"security.{KIND}")
    if services.counters.is_due(f"{KIND} {device}", _EVERY_S):
        session.add(
            tables.SecurityEvent(
                at=services.now(),
                device=device,
                kind=KIND,
                detail="Two boots go on side by side: two machines use this device's key. Revoke "
                "it and enrol each under a name of its own: edgeml devices revoke.",
            )
        )


def _forget(session: Session, device: str) -> None:
    """Keep the last boots of a device alone."""
    table = tables.DeviceBoot
    of_it = select(table.boot_id).where(table.device == device).order_by(table.last_at.desc())
    kept = list(session.scalars(of_it.limit(_KEPT)))
    session.execute(delete(table).where(table.device == device, table.boot_id.not_in(kept)))
