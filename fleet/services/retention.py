"""Keeps the database from growing without end: what is old, or too much, is forgotten.

Telemetry and the other records go first: they are by far the most. A stream's mark stays, so a
record that was forgotten is still known when it comes again. Device evidence, the batches that
prove it and security events are kept longer; evidence that the converter pushed, the audit log
and whatever an open rollout decides by are kept for ever.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, func, select

from fleet.db import tables
from fleet.rollouts.observe import ENDED
from fleet.services.context import Services

DAY_S = 86400.0
_AT_ONCE = 500
_ROW_BYTES = 400  # what a record takes beside its body: columns and three indexes


@dataclass(frozen=True)
class Retention:
    """How long and how much is kept.

    `records_days` and `records_bytes` are for records; `proofs_days` is for device evidence with
    its signed batches, and for security events.
    """

    records_days: float = 30.0
    records_bytes: int = 4 << 30
    proofs_days: float = 365.0


def forget(services: Services, keep: Retention) -> int:
    """Delete what is not kept any more; returns how many rows.

    It writes in small transactions, so that ingest and rollouts never wait for long.
    """
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
        total += len(ids)
        if len(ids) < _AT_ONCE:
            return total
