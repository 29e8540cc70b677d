"""After a restore from a backup: notice it, freeze, raise the epoch, learn from the devices.

A restored database knows less than devices hold. The file beside the keys (`fleet.incarnation`)
disagrees with it at the start, or a device's hello returns a state, signed by this fleet, that
is newer than any in the database. Then no rollout moves until an operator thaws them, all
desired states get a higher epoch, and each device's own state is taken over at its next hello.
"""

import uuid

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from cloud_sync.messages import DesiredState, Hello, decode
from cloud_sync.trust import PayloadType, key_id, open_envelope
from cloud_sync.trust.identity import certified_key
from cloud_sync.trust.keys import public_pem
from edgeml.errors import EdgemlError
from fleet.db import tables
from fleet.identity_ledger import Admitted, Revoked, Spent
from fleet.incarnation import Head
from fleet.services import configuration, credentials, desired, facts
from fleet.services.audit import append, audited, sync_head
from fleet.services.context import Caller, Services
from fleet.services.enrollment import new_device

_NEXT = "incarnation.next"
_FLEET = "fleet"
_MAX_NAMED = 100


def check(services: Services) -> str:
    """Compare the database with the file beside the keys, at the start.

    Returns:
        Why rollouts are frozen; empty when they are not.
    """
    head = services.head.read()
    with services.database.read() as session:
        known = {facts.get(session, facts.INCARNATION), facts.get(session, _NEXT)} - {""}
        reason = _disagreement(session, head, known)
    if reason:
        freeze(services, reason, head.epoch if head else 0)
        remember(services)
    services.ledger.compact(services.now())
    _begin(services)
    with services.database.read() as session:
        return facts.get(session, facts.FROZEN)


def freeze(services: Services, reason: str, epoch: int) -> None:
    """Freeze rollouts and raise the epoch above `epoch` and above the database's."""
    with services.database.write() as session:
        raised = max(facts.epoch(session), epoch) + 1
        facts.put(session, facts.EPOCH, str(raised))
        facts.put(session, facts.FROZEN, reason)
        session.execute(update(tables.Device).values(unreconciled=True))
        session.add(
            tables.SecurityEvent(
                at=services.now(), device="", kind="database-restored", detail=reason
            )
        )
        caller = Caller(_FLEET, reason)
        append(services, session, caller, "fleet.freeze", "rollouts", epoch=raised)
    services.head.change(epoch=raised)
    sync_head(services)
    services.changes.announce()


def remember(services: Services) -> None:
    """Bring a restored database up to the ledger beside the keys.

    Who was revoked after the backup is revoked again, who was enrolled or renewed has the key of
    then, and a token that was used is used. Operators' sessions and tokens end: which of them were
    revoked after the backup nobody knows any more.
    """
    changed: list[str] = []
    with services.database.write() as session:
        for entry in services.ledger.entries():
            if isinstance(entry, Spent):
                changed += _spend(session, entry)
            elif isinstance(entry, Revoked):
                changed += _revoke(session, entry)
            else:
                changed += _admit(session, entry)
        if changed:
            caller = Caller(_FLEET, "The database is an older copy than the keys.")
            what = sorted(changed)[:_MAX_NAMED]
            append(
                services, session, caller, "fleet.remember", "identities", number=len(changed),
                what=what,
            )  # fmt: skip
        if number := credentials.end_all(services, session):
            caller = Caller(_FLEET, "The database is an older copy than the keys.")
            append(services, session, caller, "fleet.forget", "credentials", number=number)
    sync_head(services)


def _spend(session: Session, entry: Spent) -> list[str]:
    row = session.get(tables.Enrollment, entry.token_hash)
    if row is None or row.uses <= entry.uses:
        return []
    row.uses = entry.uses
    row.used_at = None if entry.uses else entry.at
    return [f"used token of {row.device}"]


def _revoke(session: Session, entry: Revoked) -> list[str]:
    row = session.get(tables.Device, entry.device)
    if row is None or row.revoked_at is not None:
        return []
    row.revoked_at = entry.at
    return [f"revoked {entry.device}"]


def _admit(session: Session, entry: Admitted) -> list[str]:
    row = session.get(tables.Device, entry.device) or new_device(entry.device)
    if row.certificate == entry.certificate and row.revoked_at is None:
        return []
    key = certified_key(entry.certificate)
    row.certificate = entry.certificate
    row.public_key = public_pem(key)
    row.key_id = key_id(key)
    row.mqtt_password_hash = entry.password_hash
    row.enrolled_at = entry.at
    row.revoked_at = None
    row.unreconciled = True
    session.add(row)
    session.flush()
    session.merge(
        tables.DeviceKey(
            key_id=row.key_id, device=row.id, public_key=row.public_key, since=entry.at
        )
    )
    return [f"key of {entry.device}"]


def frozen(services: Services) -> str:
    """Why rollouts are frozen; empty when they are not."""
    with services.database.read() as session:
        return facts.get(session, facts.FROZEN)


def thaw(services: Services, caller: Caller) -> None:
    """Let rollouts move again."""
    with audited(services, caller, "fleet.thaw", "rollouts") as session:
        facts.put(session, facts.FROZEN, "")


def held_state(services: Services, said: Hello) -> DesiredState | None:
    """The desired state that a device holds, if this fleet signed it for that device."""
    if not said.accepted:
        return None
    keys = services.keys.director_keys
    try:
        payload = open_envelope(said.accepted.encode(), keys, PayloadType.DESIRED)
        state = decode(payload, DesiredState)
    except EdgemlError:
        return None
    return state if state.device == said.device else None


def notice_newer(services: Services, device: str, held: DesiredState | None) -> None:
    """Freeze if a device holds a state that is newer than any that the database knows."""
    if held is None:
        return
    with services.database.read() as session:
        last = session.get(tables.DesiredState, device)
        row = session.get_one(tables.Device, device)
        known = (last.epoch, last.counter) if last else (0, 0)
        behind = (held.epoch, held.counter) > known and held.epoch >= facts.epoch(session)
        if row.unreconciled and held.epoch < facts.epoch(session):
            return
    if behind:
        reason = (
            f"{device} holds desired state {held.epoch}.{held.counter}, the database knows "
            f"{known[0]}.{known[1]}: it seems to be restored from a backup."
        )
        freeze(services, reason, held.epoch)


def reconcile(
    services: Services, session: Session, row: tables.Device, held: DesiredState | None
) -> None:
    """Take over what a device holds, and sign it again under the present epoch."""
    row.unreconciled = False
    last = session.get(tables.DesiredState, row.id)
    known = (last.epoch, last.counter) if last else (0, 0)
    if held is not None and (held.epoch, held.counter) > known:
        for model in set(desired.models(session, row.id)) - set(held.models):
            desired.want(session, row.id, model, None)
        for model, wanted in held.models.items():
            desired.want(session, row.id, model, wanted)
        if held.configuration.config_version > row.config_version:
            configuration.take_over(services, session, row, held.configuration)
    if held is not None or last is not None:
        desired.reissue(services, session, row.id)


def _disagreement(session: Session, head: Head | None, known: set[str]) -> str:
    if head is None:
        return "The file keys/head.json is gone, the database is not new." if known else ""
    if not known:
        return "The database is new, the keys are not."
    if head.incarnation not in known:
        return "The database is of another incarnation than the keys: an older copy."
    if head.epoch > facts.epoch(session):
        return "The database has an older epoch than the keys."
    entry = session.get(tables.AuditEntry, head.audit_seq) if head.audit_seq else None
    if head.audit_seq and (entry is None or entry.hash != head.audit_hash):
        newest = session.scalar(select(func.max(tables.AuditEntry.seq))) or 0
        return (
            f"The audit log ends at entry {newest}, {head.audit_seq} were written: "
            "the database is an older copy."
        )
    return ""


def _begin(services: Services) -> None:
    """Begin a new incarnation; a crash between two of the steps is no disagreement."""
    incarnation = uuid.uuid4().hex
    with services.database.write() as session:
        facts.put(session, _NEXT, incarnation)
        epoch = facts.epoch(session)
        facts.put(session, facts.EPOCH, str(epoch))
        query = select(tables.AuditEntry).order_by(tables.AuditEntry.seq.desc()).limit(1)
        last = session.scalars(query).first()
    services.head.write(
        Head(
            incarnation=incarnation,
            epoch=epoch,
            audit_seq=last.seq if last else 0,
            audit_hash=last.hash if last else "",
        )
    )
    with services.database.write() as session:
        facts.put(session, facts.INCARNATION, incarnation)
