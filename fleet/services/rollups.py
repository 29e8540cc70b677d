"""Roll-ups: telemetry summed up by minute, hour and day, each record exactly once.

They are made of what is stored, after it is stored: `fold` takes the records above a mark, adds
them to the sums, and lifts the mark in the same transaction. A record that comes late has a new
number in the store and is added to the minute that it speaks of; one that comes again is not in the
store again. Sums are kept by model, release, hardware class and the labels in `LABELS`; beside
these by device and hour, which answers what those cannot.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec
from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from cloud_sync.messages import RecordKind, Window
from fleet.db import tables
from fleet.db.bulk import upsert_rows
from fleet.services import facts
from fleet.services.context import Services
from fleet.services.records import WRITERS
from fleet.sums import Sums, decoded_latency, decoded_metrics

MINUTE, HOUR, DAY = 60, 3600, 86400
STEPS = (MINUTE, HOUR, DAY)
LABELS = ("site",)
"""The labels by which roll-ups are kept apart."""

EVERY_S = 5.0
THROUGH = "rollups.through"
_AT_ONCE = 5000
_KEYS_AT_ONCE = 500
_AHEAD_S = 300.0
_MAX_LABELS = 512
_window: msgspec.json.Decoder[Window] = msgspec.json.Decoder(Window)
_SUMMED = (
    *("windows", "seconds", "accepted", "replaced", "inferred", "empty", "errors", "confident"),
    *("rss_bytes", "energy_j", "energy_inferred"),
)
_VALUES = (*_SUMMED, "latency", "metrics")
Key = tuple[Any, ...]
Kept = TypeVar("Kept", tables.RollUp, tables.DeviceRollUp)


class DeviceFigures(NamedTuple):
    """What one device did with one release."""

    device: str
    sums: Sums


@dataclass(frozen=True)
class _Stored:
    """A record as it is read for its roll-ups."""

    device: str
    model: str
    release: str
    at: float
    window: Window


def fold(services: Services, limit: int = _AT_ONCE) -> int:
    """Add the next stored records to the roll-ups; returns how many numbers it went through.

    Safe to run in several processes: one that finds the mark lifted by another changes nothing.
    """
    last = _last(services)
    with services.database.read() as session:
        before = facts.get(session, THROUGH)
        through = _number(before)
        if last <= through:
            return 0
        found, to = _read(services, session, through, last, limit)
        classes = _classes(session, {one.device for one in found})
    by_class, by_device = _summed(found, classes)
    with services.database.write() as session:
        services.database.one_at_a_time(session, THROUGH)
        if facts.get(session, THROUGH) != before:
            return 0
        _add(session, tables.RollUp, by_class)
        _add(session, tables.DeviceRollUp, by_device)
        facts.put(session, THROUGH, str(to))
    services.counters.add("rollups.windows", len(found))
    return to - through


def fold_all(services: Services) -> int:
    """Add all that is stored."""
    total = 0
    while step := fold(services):
        total += step
    return total


def forgot(session: Session) -> None:
    """Lower the mark to the last record that is left: for whoever deletes records.

    SQLite gives the numbers of deleted rows at the end of a table again. What is left was summed
    up, as far as it is below the mark; a `fold` that is under way begins anew.
    """
    last = session.scalar(select(func.max(tables.Record.id))) or 0
    through = min(_number(facts.get(session, THROUGH)), last)
    facts.put(session, THROUGH, f"{through} {secrets.token_hex(8)}")


def by_device(
    session: Session, model: str, release: str, since: float, devices: Sequence[str] | None = None
) -> list[DeviceFigures]:
    """What each device did with a release, from the hour of `since` on."""
    row = tables.DeviceRollUp
    query = select(row).where(
        row.model == model, row.release == release, row.begins_at >= _floor(since, HOUR)
    )
    if devices is not None:
        query = query.where(row.device.in_(devices))
    found: dict[str, Sums] = {}
    for kept in session.scalars(query):
        found.setdefault(kept.device, Sums()).merge(sums_of(kept))
    return [DeviceFigures(device, sums) for device, sums in sorted(found.items())]


def sums_of(row: tables.RollUp | tables.DeviceRollUp) -> Sums:
    """A row's sums."""
    fields = {name: getattr(row, name) for name in _SUMMED}
    return Sums(
        **fields, latency=decoded_latency(row.latency), metrics=decoded_metrics(row.metrics)
    )


def _number(mark: str) -> int:
    return int(mark.partition(" ")[0] or 0)


def _last(services: Services) -> int:
    """A number up to which nothing more will appear in the store.

    Numbers are given before the commit: on PostgreSQL it waits for those who are storing.
    """
    query = select(func.max(tables.Record.id))
    if services.database.is_sqlite:
        with services.database.read() as session:
            return session.scalar(query) or 0
    with services.database.write() as session:
        session.execute(select(func.pg_advisory_xact_lock(WRITERS)))
        return session.scalar(query) or 0


def _read(
    services: Services, session: Session, through: int, last: int, limit: int
) -> tuple[list[_Stored], int]:
    """The windows above a mark, and the mark up to which these are all."""
    row = tables.Record
    columns = (row.id, row.device, row.model, row.release, row.at, row.received_at, row.body)
    query = (
        select(*columns)
        .where(row.id > through, row.id <= last, row.kind == str(RecordKind.TELEMETRY))
        .order_by(row.id)
        .limit(limit)
    )
    rows = session.execute(query).all()
    found = []
    for _, device, model, release, at, received_at, body in rows:
        try:
            window = _window.decode(body)
        except (msgspec.DecodeError, ValueError):
            services.counters.add("rollups.unreadable")  # of a version that held for good less
            continue
        found.append(_Stored(device, model, release, _time(at, received_at), window))
    return found, rows[-1].id if len(rows) == limit else last


def _time(at: float | None, received_at: float) -> float:
    """When a record is of: as the device says, where that can be."""
    return at if at is not None and 0 < at <= received_at + _AHEAD_S else received_at


def _classes(session: Session, devices: set[str]) -> dict[str, tuple[str, str]]:
    """The hardware class of each device, and those of its labels that roll-ups keep apart."""
    device, label = tables.Device, tables.DeviceLabel
    found: dict[str, tuple[str, str]] = {}
    for part in _parts(sorted(devices)):
        query = select(label.device, label.key, label.value).where(
            label.device.in_(part), label.key.in_(LABELS)
        )
        labels: dict[str, dict[str, str]] = {}
        for name, key, value in session.execute(query):
            labels.setdefault(name, {})[key] = value
        for name, kind in session.execute(
            select(device.id, device.hardware_class).where(device.id.in_(part))
        ):
            found[name] = kind, encoded_labels(labels.get(name, {}))
    return found


def encoded_labels(labels: Mapping[str, str]) -> str:
    """Labels as roll-ups keep them."""
    text = msgspec.json.encode(dict(sorted(labels.items()))).decode()
    return text if len(text) <= _MAX_LABELS else "{}"


def _summed(
    found: Iterable[_Stored], classes: Mapping[str, tuple[str, str]]
) -> tuple[dict[Key, Sums], dict[Key, Sums]]:
    minutes: dict[Key, Sums] = {}
    by_class: dict[Key, Sums] = {}
    by_device: dict[Key, Sums] = {}
    for one in found:
        about = (one.model, one.release, *classes[one.device])
        minutes.setdefault((MINUTE, _floor(one.at, MINUTE), *about), Sums()).add(one.window)
        hour = (one.device, _floor(one.at, HOUR), one.model, one.release)
        by_device.setdefault(hour, Sums()).add(one.window)
    for (_, begins_at, *of), sums in minutes.items():
        for step in (HOUR, DAY):
            by_class.setdefault((step, _floor(begins_at, step), *of), Sums()).merge(sums)
    return by_class | minutes, by_device


def _add(session: Session, table: type[Kept], new: Mapping[Key, Sums]) -> None:
    keys: list[str] = [column.name for column in table.__table__.primary_key]
    columns = [getattr(table, name) for name in keys]
    for part in _parts(sorted(new)):
        sums: dict[Key, Sums] = {key: new[key] for key in part}
        for row in session.scalars(select(table).where(tuple_(*columns).in_(part))):
            sums[tuple(getattr(row, name) for name in keys)].merge(sums_of(row))
        session.expunge_all()
        rows = [tuple(key) + _values(sums[key]) for key in part]
        upsert_rows(session, table, (*keys, *_VALUES), rows, _VALUES)


def _values(sums: Sums) -> tuple[Any, ...]:
    counted = (getattr(sums, name) for name in _SUMMED)
    return (*counted, sums.encoded_latency(), sums.encoded_metrics())


def _parts(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[at : at + _KEYS_AT_ONCE] for at in range(0, len(items), _KEYS_AT_ONCE))


def _floor(at: float, step: int) -> int:
    return int(at // step) * step
