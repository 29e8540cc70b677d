"""What devices spend on the network, as they say: totals by month, rollout and cause."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloud_sync.messages import LedgerRecord
from fleet.db import tables
from fleet.problem import NotFound
from fleet.resources import LedgerInfo, RolloutCost
from fleet.services.columns import fit
from fleet.services.context import Services

MAX_LINES = 10_000
_MAX_BYTES = 2**62


def keep(session: Session, device: str, records: Sequence[LedgerRecord], now: float) -> None:
    """Keep the totals of a device; they only rise, so that a late record changes nothing."""
    if not records:
        return
    table = tables.LedgerEntry
    known = select(func.count()).select_from(table).where(table.device == device)
    room = MAX_LINES - (session.scalar(known) or 0)
    for record in records:
        for said in record.entries:
            key = (
                device,
                fit(record.ledger, 64),
                fit(said.month, 7),
                fit(said.rollout, 64),
                said.cause,
            )
            row = session.get(table, tuple(map(str, key)))
            if row is None:
                if room <= 0:
                    continue  # no device of ours has so many
                room -= 1
                names = ("device", "ledger", "month", "rollout", "cause")
                row = table(
                    **dict(zip(names, map(str, key), strict=True)),
                    sent=0, received=0, failures=0, note="", at=now,
                )  # fmt: skip
                session.add(row)
                session.flush()
            row.sent = max(row.sent, min(said.sent, _MAX_BYTES))
            row.received = max(row.received, min(said.received, _MAX_BYTES))
            row.failures = max(row.failures, min(said.failures, _MAX_BYTES))
            row.note = fit(said.note, 500) or row.note
            row.at = now


def show(services: Services, device: str, *, month: str = "", rollout: str = "") -> LedgerInfo:
    """What a device spent, by month, rollout and cause, newest month first.

    Raises:
        NotFound: there is no such device.
    """
    table = tables.LedgerEntry
    columns = (table.month, table.rollout, table.cause)
    query = (
        select(
            *columns,
            func.sum(table.sent),
            func.sum(table.received),
            func.sum(table.failures),
            func.max(table.note),
        )
        .where(table.device == device)
        .group_by(*columns)
        .order_by(table.month.desc(), table.rollout, table.cause)
    )
    if month:
        query = query.where(table.month == month)
    if rollout:
        query = query.where(table.rollout == rollout)
    with services.database.read() as session:
        if session.get(tables.Device, device) is None:
            raise NotFound(
                f"There is no device {device[:64]!r}.", fix="See them all: edgeml devices list"
            )
        rows = session.execute(query).all()
    return {
        "device": device,
        "lines": [
            {
                "month": row[0],
                "rollout": row[1],
                "cause": row[2],
                "sent": int(row[3]),
                "received": int(row[4]),
                "failures": int(row[5]),
                "note": row[6],
            }
            for row in rows
        ],
    }


def of_rollout(services: Services, rollout: str) -> list[RolloutCost]:
    """What a rollout cost each device, the most expensive first."""
    table = tables.LedgerEntry
    spent = func.sum(table.sent + table.received)
    query = (
        select(table.device, spent)
        .where(table.rollout == rollout)
        .group_by(table.device)
        .order_by(spent.desc(), table.device)
    )
    with services.database.read() as session:
        return [{"device": device, "bytes": int(total)} for device, total in session.execute(query)]
