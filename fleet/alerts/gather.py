"""Reads from the database, the disk and the trust repository what alerts are decided by."""

import shutil
from collections.abc import Iterator

from cryptography import x509
from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import Session, aliased

from cloud_sync.evidence import Verdict
from fleet.alerts.conditions import Ends, Facts, Refused, Silent, Troubled
from fleet.alerts.rules import AlertRules
from fleet.db import tables
from fleet.rollouts import RolloutStatus
from fleet.services import external, facts, rollout_rows
from fleet.services.context import Services
from fleet.trust.repository import LIFE_S, ONLINE, TOP

INGEST_WAITING = "ingest.waiting"
PAUSED_BY = "Paused by "
_MAX_ROLLOUTS = 100
_MAX_REFUSED = 200


def gather(services: Services, rules: AlertRules) -> Facts:
    """The facts of this moment."""
    now = services.now()
    disk = shutil.disk_usage(services.keys.folder)
    waiting = services.gauges.get(INGEST_WAITING)
    with services.database.read() as session:
        silent_number, silent = _silent(session, rules, now)
        return Facts(
            now=now,
            silent=silent,
            silent_number=silent_number,
            rollouts=tuple(_troubled(session)),
            refused=_refused(session, now - rules.security_event_s),
            ends=tuple(_ends(services, rules)),
            disk_free=disk.free,
            disk_total=disk.total,
            ingest_waiting=waiting() if waiting else 0.0,
            dead=_dead(session, now - rules.webhook_dead_s),
            registry=external.read(session),
            frozen=facts.get(session, facts.FROZEN),
        )


def _silent(session: Session, rules: AlertRules, now: float) -> tuple[int, tuple[Silent, ...]]:
    """How many devices are silent for too long, and the first of them by name."""
    if not rules.device_offline_s:
        return 0, ()
    table = tables.Device
    condition = and_(table.revoked_at.is_(None), table.last_seen < now - rules.device_offline_s)
    number = session.scalar(select(func.count()).select_from(table).where(condition)) or 0
    query = select(table.id, table.last_seen).where(condition).order_by(table.id)
    rows = session.execute(query.limit(rules.device_offline_each))
    return number, tuple(Silent(device, seen or 0.0) for device, seen in rows)


def _troubled(session: Session) -> Iterator[Troubled]:
    """Rollouts that went wrong and that nobody has gone beyond: no later one of the model."""
    table = tables.Rollout
    later = aliased(table)
    overtaken = exists().where(later.model == table.model, later.created_at > table.created_at)
    query = select(table).where(
        table.status.in_([RolloutStatus.HALTED, RolloutStatus.PAUSED, RolloutStatus.RUNNING]),
        ~overtaken,
    )
    for row in session.scalars(query.order_by(table.created_at.desc()).limit(_MAX_ROLLOUTS)):
        decision = rollout_rows.decision_of(row)
        failed = tuple((g.name, g.reason) for g in decision.gates if g.result is Verdict.FAIL)
        stopped = row.status == RolloutStatus.HALTED or _paused_itself(row)
        if failed or stopped:
            yield Troubled(
                rollout=row.id, stopped=stopped, sentence=decision.sentence, gates=failed
            )


def _paused_itself(row: tables.Rollout) -> bool:
    """Whether the engine paused it, and not a person, who knows."""
    reason = rollout_rows.state_of(row).reason
    return row.status == RolloutStatus.PAUSED and not reason.startswith(PAUSED_BY)


def _refused(session: Session, since: float) -> tuple[Refused, ...]:
    table = tables.SecurityEvent
    grouped = (
        select(table.device, table.kind, func.count(), func.max(table.at), func.max(table.id))
        .where(table.at > since)
        .group_by(table.device, table.kind)
        .order_by(func.max(table.id).desc())
        .limit(_MAX_REFUSED)
    )
    found = session.execute(grouped).all()
    newest = [row[4] for row in found]
    details = dict(
        session.execute(select(table.id, table.detail).where(table.id.in_(newest))).all()
    )
    return tuple(
        Refused(device=device, kind=kind, number=number, newest=at, detail=details.get(last, ""))
        for device, kind, number, at, last in found
    )


def _ends(services: Services, rules: AlertRules) -> Iterator[Ends]:
    """What is signed and expires: TUF's roles, and the authority of the devices' certificates.

    What the fleet renews by itself is told of only when it is not renewed in time.
    """
    if not rules.expiry_s:
        return
    repository = services.trust
    for role in (*TOP, *repository.teams()):
        found = repository.published(role)
        if found is None:
            continue
        renewed = role in ONLINE or repository.is_online(role)
        soon = min(rules.expiry_s, LIFE_S.get(role, rules.expiry_s) / 4 if renewed else 1e12)
        fix = (
            "The fleet renews it by itself and could not: its log says why."
            if renewed
            else f"Sign it anew: edgeml trust refresh --role {role}"
        )
        yield Ends(f"The signed {role}", found.signed.expires.timestamp(), soon, fix)
    authority = x509.load_pem_x509_certificate(services.keys.ca.encode())
    yield Ends(
        "The authority of the devices' certificates",
        authority.not_valid_after_utc.timestamp(),
        rules.expiry_s,
        "Rotate it: edgeml trust rotate-key ca",
    )


def _dead(session: Session, since: float) -> dict[str, int]:
    table = tables.Delivery
    query = (
        select(table.webhook, func.count())
        .where(table.status == "dead", table.settled_at > since)
        .group_by(table.webhook)
    )
    return dict(session.execute(query).all())
