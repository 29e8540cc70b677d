"""What devices spend on the network, as they say: totals by month, rollout and cause."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from cloud_sync.messages import LedgerEntry, LedgerRecord
from fleet.db import tables
from fleet.problem import NotFound
from fleet.resources import LedgerInfo
from fleet.services.columns import fit
from fleet.services.context import Services

MAX_LINES = 10_000
_MAX_BYTES = 2**62
_TOGETHER = 1000
_NAMES = ("device", "ledger", "month", "rollout", "cause")
_Key = tuple[str, ...]


@dataclass(frozen=True)
class Lines:
    """The lines that records speak of, and how many each of their devices has in all."""

    rows: dict[_Key, tables.LedgerEntry] = field(default_factory=dict)
    number: Counter[str] = field(default_factory=Counter)


def fetch(session: Session, said: Iterable[tuple[str, LedgerRecord]]) -> Lines:
    """Fetch what `keep` will ask for, for the records of many devices at once."""
    table, lines = tables.LedgerEntry, Lines()
    keys = sorted({key for device, record in said for key, _ in _entries(device, record)})
    columns = tuple_(*(getattr(table, name) for name in _NAMES))
    for at in range(0, len(keys), _TOGETHER):
        some = keys[at : at + _TOGETHER]
        for row in session.scalars(select(table).where(columns.in_(some))):
            lines.rows[tuple(getattr(row, name) for name in _NAMES)] = row
    devices = {key[0] for key in keys}
    counted = select(table.device, func.count()).where(table.device.in_(devices))
    if devices:
        for device, number in session.execute(counted.group_by(table.device)):
            lines.number[device] = number
    return lines


def keep(
    session: Session,
    device: str,
    records: Sequence[LedgerRecord],
    now: float,
    lines: Lines | None = None,
) -> None:
    """Keep the totals of a device; they only rise, so that a late record changes nothing.

    Args:
        session: a writing one.
        device: whose.
        records: what it says.
        now: Unix seconds.
        lines: what `fetch` found in this session, where it was asked for many at once.
    """
    if lines is None:
        lines = fetch(session, [(device, record) for record in records])
    for record in records:
        for key, said in _entries(device, record):
            row = lines.rows.get(key)
            if row is None:
                if lines.number[device] >= MAX_LINES:
                    continue  # no device of ours has so many
                lines.number[device] += 1
                row = tables.LedgerEntry(
                    **dict(zip(_NAMES, key, strict=True)),
                    sent=0, received=0, failures=0, note="", at=now,
                )  # fmt: skip
                lines.rows[key] = row
                session.add(row)
            row.sent = max(row.sent, min(said.sent, _MAX_BYTES))
            row.received = max(row.received, min(said.received, _MAX_BYTES))
            row.failures = max(row.failures, min(said.failures, _MAX_BYTES))
            row.note = fit(said.note, 500) or row.note
            row.at = now


def _entries(device: str, record: LedgerRecord) -> Iterator[tuple[_Key, LedgerEntry]]:
    ledger = fit(record.ledger, 64)
    for said in record.entries:
        yield (device, ledger, fit(said.month, 7), fit(said.rollout, 64), str(said.cause)), said


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
