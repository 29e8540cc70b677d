"""Keeps the database from growing without end: what is old, or too much, is forgotten.

Telemetry and the other records go first: they are by far the most, and are summed up in roll-ups,
which are kept by minute, hour and day, each for its own time. A stream's mark stays, so a
record that was forgotten is still known when it comes again. Device evidence, the batches that
prove it and security events are kept longer; evidence that the converter pushed, the audit log
and whatever an open rollout decides by are kept for ever.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, and_, delete, func, select, tuple_

from fleet.db import tables
from fleet.resources import RetentionInfo
from fleet.rollouts.observe import ENDED
from fleet.services import facts, rollups
from fleet.services.context import Services

DAY_S = 86400.0
_AT_ONCE = 500
_FACT = "retention"
_ROW_BYTES = 400  # what a record takes beside its body: columns and three indexes


@dataclass(frozen=True)
class Retention:
    """How long and how much is kept.

    `records_days` and `records_bytes` are for records; `minute_days`, `hour_days` and `day_days`
    for the roll-ups of telemetry, and `device_days` for the hours of each device;
    `proofs_days` is for device evidence with its signed batches, and for security events;
    `ledger_days` for what devices spent on the network; `samples_days`, and `samples_bytes` of
    each model, for captured frames.
    """

    records_days: float = 30.0
    records_bytes: int = 4 << 30
    proofs_days: float = 365.0
    minute_days: float = 2.0
    hour_days: float = 90.0
    day_days: float = 1830.0
    device_days: float = 14.0
    ledger_days: float = 400.0
    samples_days: float = 90.0
    samples_bytes: int = 10 << 30


def note(services: Services, keep: Retention) -> None:
    """Keep where all processes see it what is kept; the one that leads forgets by it."""
    told = json.dumps(asdict(keep), sort_keys=True)
    with services.database.read() as session:
        if facts.get(session, _FACT) == told:
            return
    with services.database.write() as session:
        facts.put(session, _FACT, told)


def held(services: Services) -> RetentionInfo:
    """How long and how much is kept, as the process that leads was told."""
    with services.database.read() as session:
        text = facts.get(session, _FACT)
    return cast("RetentionInfo", asdict(Retention()) | (json.loads(text) if text else {}))


def forget(services: Services, keep: Retention) -> int:
    """Delete what is not kept any more; returns how many rows.

    It writes in small transactions, so that ingest and rollouts never wait for long.
    """
    rollups.fold_all(services)  # what is not summed up yet is not forgotten
    now = services.now()
    old = now - keep.records_days * DAY_S
    older = now - keep.proofs_days * DAY_S
    record, evidence, proof = tables.Record, tables.Evidence, tables.SignedBatch
    open_rollouts = select(tables.Rollout.id).where(
        tables.Rollout.status.not_in([str(status) for status in ENDED])
    )
    forgotten = _delete(services, record, select(record.id).where(record.received_at < old))
    floor = _floor(services, keep.records_bytes)
    if floor:
        forgotten += _delete(services, record, select(record.id).where(record.id <= floor))
    forgotten += _delete(
        services,
        evidence,
        select(evidence.id).where(
            evidence.received_at < older,
            evidence.device.is_not(None),
            evidence.rollout.not_in(open_rollouts),
        ),
    )
    used = select(evidence.signed_batch).where(evidence.signed_batch == proof.id)
    unused = select(proof.id).where(proof.received_at < older, ~used.exists())
    forgotten += _delete(services, proof, unused)
    event = tables.SecurityEvent
    forgotten += _delete(services, event, select(event.id).where(event.at < older))
    forgotten += _forget_rollups(services, keep, now)
    spent = tables.LedgerEntry
    forgotten += _delete_by_keys(services, spent, spent.at < now - keep.ledger_days * DAY_S)
    if forgotten:
        services.counters.add("retention.forgotten", forgotten)
    return forgotten


def _floor(services: Services, most: int) -> int:
    """The newest record that there is no room for; 0 where all fit."""
    record = tables.Record
    size = func.length(record.body) + _ROW_BYTES
    with services.database.read() as session:
        if (session.scalar(select(func.sum(size))) or 0) <= most:
            return 0
        # Newest first, until the room is used up: sums over a window, in the database.
        running = func.sum(size).over(order_by=record.id.desc()).label("running")
        sums = select(record.id, running).subquery()
        query = select(func.max(sums.c.id)).where(sums.c.running > most)
        return session.scalar(query) or 0


def _forget_rollups(services: Services, keep: Retention, now: float) -> int:
    table, of_device = tables.RollUp, tables.DeviceRollUp
    kept = {rollups.MINUTE: keep.minute_days, rollups.HOUR: keep.hour_days}
    kept[rollups.DAY] = keep.day_days
    forgotten = sum(
        _delete_by_keys(
            services, table, and_(table.step == step, table.begins_at < now - days * DAY_S - step)
        )
        for step, days in kept.items()
    )
    old = of_device.begins_at < now - keep.device_days * DAY_S - rollups.HOUR
    return forgotten + _delete_by_keys(services, of_device, old)


def _delete_by_keys(
    services: Services, table: type[tables.Table], which: ColumnElement[bool]
) -> int:
    """Delete rows that have no number."""
    keys = list(table.__table__.primary_key)
    total = 0
    while True:
        with services.database.write() as session:
            found = session.execute(select(*keys).where(which).limit(_AT_ONCE)).all()
            if found:
                of_these = tuple_(*keys).in_([tuple(row) for row in found])
                session.execute(delete(table).where(of_these))
        total += len(found)
        if len(found) < _AT_ONCE:
            return total


def _delete(
    services: Services,
    table: type[tables.Record | tables.Evidence | tables.SignedBatch | tables.SecurityEvent],
    which: Select[Any],
) -> int:
    total = 0
    while True:
        with services.database.write() as session:
            ids = list(session.scalars(which.limit(_AT_ONCE)))
            if ids:
                session.execute(delete(table).where(table.id.in_(ids)))
                if table is tables.Record:
                    rollups.forgot(session)
        total += len(ids)
        if len(ids) < _AT_ONCE:
            return total
