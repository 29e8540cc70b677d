"""Records from devices' outboxes: verified, stored once, acknowledged after the commit.

Many batches go into one transaction, which holds the rows of their devices: so consumers that
work side by side on one database take turns at a device, and each record is stored once. What was
stored of a stream is kept as a mark (all up to `through`) and ranges above it, so that a repeated
record is known even when its row is long gone; a gap record accounts for what the device itself
has dropped.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import func, select, tuple_, update
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from cloud_sync.messages import (
    Ack,
    Batch,
    Down,
    Gap,
    RecordKind,
    decode,
    encode,
    topic,
)
from cloud_sync.ranges import runs
from cloud_sync.trust import PayloadType, PublicKey, key_id, open_envelope, sign
from edgeml.errors import RemoteError, TrustError
from fleet.db import tables
from fleet.db.bulk import insert_rows, upsert_rows
from fleet.intervals import IntervalSet, Mark
from fleet.opening.reading import MALFORMED, ReadBatch, Row, decode_body, read, why_not
from fleet.resources import Page, TelemetryWindow
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.services import security
from fleet.services.columns import fit
from fleet.services.context import Services
from fleet.services.heeding import Fetched, OpenedBatch, fetch, finish, heed
from fleet.services.selection import chosen

MAX_RANGES = 4096
WRITERS = 0x65646765  # the advisory lock that those who store share
_MAX_PAGE = 10_000
_JUST_NOW_S = 1.0
_COLUMNS = ("device", "stream", "seq", "kind", "model", "release", "at", "received_at", "body")
_STREAM = ("device", "stream", "through", "ranges", "boot_id", "first_at", "last_at")
_ORDINARY = {str(RecordKind.TELEMETRY)}
# Telemetry is only stored; these are also taken to heart.
_TOLD = frozenset(map(str, RecordKind)) - {RecordKind.TELEMETRY, RecordKind.GAP}
_Key = tuple[str, str]


@dataclass(frozen=True)
class SignedBatch:
    """A batch that its device has signed, and the envelope that proves it."""

    batch: Batch
    envelope: bytes


@dataclass
class _Known:
    """What is stored of a stream, the boot it is from, and since when it is known."""

    mark: Mark = Mark()  # noqa: RUF009 -- it is immutable
    boot: str = ""
    first_at: float | None = None


@dataclass
class _Open:
    """What a transaction gathers before it writes."""

    now: float
    streams: dict[_Key, _Known]
    fetched: Fetched
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    duplicates: int = 0
    malformed: int = 0
    notable: bool = False


def verify(
    services: Services,
    device: str,
    envelope: bytes,
    key: PublicKey,
    newer: Callable[[], PublicKey] | None = None,
) -> SignedBatch:
    """Check who signed a batch and that it can be stored.

    Args:
        services: the fleet.
        device: who the channel (topic or token) says it is from.
        envelope: the DSSE envelope's JSON.
        key: the device's public key.
        newer: asked for the key again before a batch is refused; it may have been replaced.

    Raises:
        TrustError: the device did not sign it, or it speaks of another.
        RemoteError: it cannot be read.
    """
    try:
        payload = _opened(envelope, key, newer)
    except TrustError as error:
        security.forged(
            services,
            "forged-batch",
            device,
            error,
            envelope=envelope,
            payload=PayloadType.BATCH,
        )
        raise
    try:
        batch = decode(payload, Batch)
        if reason := why_not(batch):
            raise RemoteError("A batch was refused.", why=reason)
    except RemoteError as error:
        security.unreadable(services, device, error)
        raise
    if batch.device != device:
        refusal = TrustError("A batch was refused.", why=f"It speaks of {batch.device[:64]!r}.")
        security.record(services, "forged-batch", device, str(refusal))
        raise refusal
    return SignedBatch(batch, envelope)


def store(
    services: Services, batches: Sequence[SignedBatch | OpenedBatch], *, as_it_came: bool = False
) -> list[bytes]:
    """`keep`, with each ack signed; batches of one stream share it. Empty where there is none."""
    acks = keep(services, batches, as_it_came=as_it_came)
    signed = {(ack.device, ack.stream): signed_ack(services, ack) for ack in acks if ack}
    return [signed[ack.device, ack.stream] if ack else b"" for ack in acks]


def keep(
    services: Services, batches: Sequence[SignedBatch | OpenedBatch], *, as_it_came: bool = False
) -> list[Ack | None]:
    """Store batches in one transaction; returns what each is acknowledged by, in their order.

    Batches of one stream share their ack: it says what is stored after all of them. Nothing
    is acknowledged that is not committed. A record that cannot be read is counted, kept as it
    came, and acknowledged: sent again it would be no better. With `as_it_came` none is read.
    There is no ack, and nothing stored, where an `OpenedBatch` was signed with a key that is not
    its device's any more.

    Raises:
        NoResultFound: there is no such device.
        DBAPIError: the database refuses, or is not there; nothing is stored.
    """
    given = [_read(signed, as_it_came=as_it_came) for signed in batches]
    with services.database.write() as session:
        _beside_others(services, session)
        now = services.now()
        keys, silent = _hold(session, {one.read.device for one in given}, now)
        good = [one for one in given if _is_of(one.read, keys)]
        known = _streams(session, {_key(one.read) for one in good})
        work = _Open(now, known, fetch(session, (one.read for one in good)))
        for one in good:
            _take(services, session, one, work)
        finish(session, work.fetched)
        insert_rows(session, tables.Record, _COLUMNS, work.rows)
        _keep_streams(session, work)
        _seen(session, silent & {one.read.device for one in good}, now)
    counters = services.counters
    counters.add("ingest.batches", len(good))
    counters.add("ingest.records", len(work.rows))
    if work.duplicates:
        counters.add("ingest.duplicates", work.duplicates)
    if work.malformed:
        counters.add("ingest.malformed", work.malformed)
    if work.notable:
        services.changes.announce()
    acks = {key: _ack(*key, known.mark, services.now()) for key, known in work.streams.items()}
    return [acks[_key(one.read)] if _is_of(one.read, keys) else None for one in given]


def signed_ack(services: Services, ack: Ack) -> bytes:
    """The envelope that tells a device what is stored."""
    services.counters.add("ingest.acks")
    return sign(encode(ack), PayloadType.ACK, services.keys.director)


def apart(signed: SignedBatch) -> list[SignedBatch]:
    """A batch in two halves, each with the envelope of the whole."""
    found, middle = signed.batch.records, len(signed.batch.records) // 2
    return [
        SignedBatch(msgspec.structs.replace(signed.batch, records=half), signed.envelope)
        for half in (found[:middle], found[middle:])
    ]


def set_aside(services: Services, signed: SignedBatch, fault: Exception) -> Ack | None:
    """Keep a batch unread that the store cannot take in, and say so; returns its ack.

    Sent again it would be no better, and its stream would wait for it for ever.
    """
    (ack,) = keep(services, [signed], as_it_came=True)
    services.counters.add("ingest.set-aside", len(signed.batch.records))
    seqs = [record.seq for record in signed.batch.records]
    detail = f"seq {seqs} of stream {signed.batch.stream}: {type(fault).__name__}: {fault}"
    security.record(services, "record-set-aside", signed.batch.device, detail)
    return ack


def publish_ack(services: Services, ack: Ack) -> None:
    """Tell a device on the bus what is stored."""
    services.publisher(topic(ack.device, Down.ACK), signed_ack(services, ack))


def telemetry(
    services: Services,
    *,
    device: str = "",
    model: str = "",
    after: int = 0,
    limit: int = 100,
    scope: Selector = EVERYTHING,
) -> Page[TelemetryWindow]:
    """Windows of telemetry of a scope's devices, newest first."""
    table = tables.Record
    limit = max(1, min(limit, _MAX_PAGE))
    query = select(table).where(
        table.kind == str(RecordKind.TELEMETRY), chosen(scope, table.device)
    )
    if device:
        query = query.where(table.device == device)
    if model:
        query = query.where(table.model == model)
    if after:
        query = query.where(table.id < after)
    with services.database.read() as session:
        rows = list(session.scalars(query.order_by(table.id.desc()).limit(limit)))
    return {
        "items": [
            {
                "id": row.id,
                "device": row.device,
                "stream": row.stream,
                "seq": row.seq,
                "at": row.at,
                "received_at": row.received_at,
                "window": msgspec.json.decode(row.body),
            }
            for row in rows
        ],
        "next": str(rows[-1].id) if len(rows) == limit else None,
    }


def _opened(envelope: bytes, key: PublicKey, newer: Callable[[], PublicKey] | None) -> bytes:
    try:
        return open_envelope(envelope, {key_id(key): key}, PayloadType.BATCH)
    except TrustError:
        now = newer() if newer else key
        if key_id(now) == key_id(key):
            raise
        return open_envelope(envelope, {key_id(now): now}, PayloadType.BATCH)


def _read(signed: SignedBatch | OpenedBatch, *, as_it_came: bool) -> OpenedBatch:
    if isinstance(signed, OpenedBatch):
        return signed
    return OpenedBatch(read(signed.batch, as_it_came=as_it_came), signed.envelope)


def _key(batch: ReadBatch) -> _Key:
    return batch.device, batch.stream


def _is_of(batch: ReadBatch, keys: Mapping[str, str]) -> bool:
    return not batch.key or batch.key == keys[batch.device]


def _beside_others(services: Services, session: Session) -> None:
    """Let `rollups` wait until nobody is in the midst of storing; others are not held up."""
    if not services.database.is_sqlite:
        session.execute(select(func.pg_advisory_xact_lock_shared(WRITERS)))


def _hold(
    session: Session, devices: AbstractSet[str], now: float
) -> tuple[dict[str, str], set[str]]:
    """Hold the devices' rows until the commit, in one order.

    So consumers never wait for one another in a circle.

    Returns:
        The id of each key, empty if it was revoked; and those who were not heard of just now.
    """
    row = tables.Device
    columns = (row.id, row.key_id, row.revoked_at, row.online, row.last_seen)
    query = select(*columns).where(row.id.in_(sorted(devices)))
    # What refers to a device need not wait: its key stays as it is.
    found = session.execute(query.order_by(row.id).with_for_update(key_share=True)).all()
    keys = {device: "" if revoked_at else key for device, key, revoked_at, _, _ in found}
    if missing := devices - keys.keys():
        raise NoResultFound(f"There is no device {min(missing)[:64]!r}.")
    silent = {
        device
        for device, _, _, online, last_seen in found
        if not online or last_seen is None or not 0 <= now - last_seen < _JUST_NOW_S
    }
    return keys, silent


def _streams(session: Session, keys: Collection[_Key]) -> dict[_Key, _Known]:
    row = tables.Stream
    columns = (row.device, row.stream, row.through, row.ranges, row.boot_id, row.first_at)
    query = select(*columns).where(tuple_(row.device, row.stream).in_(sorted(keys)))
    known = {key: _Known() for key in keys}
    for device, stream, through, ranges, boot, first_at in session.execute(query):
        above = msgspec.json.decode(ranges, type=tuple[tuple[int, int], ...]) if ranges else ()
        known[device, stream] = _Known(Mark(through, IntervalSet(above)), boot, first_at)
    return known


def _take(services: Services, session: Session, one: OpenedBatch, work: _Open) -> None:
    batch = one.read
    known = work.streams[_key(batch)]
    fresh, mark = _fresh(batch.rows, known.mark)
    work.duplicates += len(batch.rows) - len(fresh)
    if len(mark.above.ranges) > MAX_RANGES:
        # Nothing of it is stored or acknowledged: such a stream is no outbox of ours.
        services.counters.add("ingest.too-many-ranges")
        return
    known.mark = mark
    known.boot = fit(batch.boot_id, 128)
    device, stream, now = batch.device, batch.stream, work.now
    work.rows += [
        (device, stream, row.seq, row.kind, row.model, row.release, row.at, now, row.body)
        for row in fresh
    ]
    if {row.kind for row in fresh} != _ORDINARY:
        work.malformed += sum(row.kind == MALFORMED for row in fresh)
        told = [decode_body(row) for row in fresh if row.kind in _TOLD]
        work.notable |= heed(services, session, one, told, fetched=work.fetched, now=work.now)


def _fresh(rows: Sequence[Row], mark: Mark) -> tuple[Sequence[Row], Mark]:
    """The rows that are not stored yet, and the mark when they are."""
    kinds = {row.kind for row in rows}
    following = all(row.seq == seq for seq, row in enumerate(rows, mark.through + 1))
    if following and RecordKind.GAP not in kinds and not mark.above.ranges:
        return rows, Mark(mark.through + len(rows))  # as nearly always
    fresh: list[Row] = []
    seen: set[int] = set()
    for row in rows:
        if row.seq in seen or row.seq in mark:
            continue
        if row.kind == RecordKind.GAP:
            gap = decode_body(row)
            assert isinstance(gap, Gap)
            mark = mark.with_range(gap.first, gap.last)
        seen.add(row.seq)
        fresh.append(row)
    for first, last in runs(seen):
        mark = mark.with_range(first, last)
    return fresh, mark


def _keep_streams(session: Session, work: _Open) -> None:
    rows = [
        (
            device,
            stream,
            known.mark.through,
            msgspec.json.encode(known.mark.above.ranges).decode(),
            known.boot,
            work.now if known.first_at is None else known.first_at,
            work.now,
        )
        for (device, stream), known in sorted(work.streams.items(), key=lambda item: item[0])
    ]
    changes = ("through", "ranges", "boot_id", "last_at")
    upsert_rows(session, tables.Stream, _STREAM, rows, changes)


def _seen(session: Session, devices: Collection[str], now: float) -> None:
    """Note that devices were heard of: a second apart, since a row is written as a whole."""
    row = tables.Device
    if devices:
        change = update(row).where(row.id.in_(sorted(devices))).values(online=True, last_seen=now)
        session.connection().execute(change)  # no object of the session holds these columns


def _ack(device: str, stream: str, mark: Mark, at: float) -> Ack:
    return Ack(device=device, stream=stream, through=mark.through, ranges=mark.above.ranges, at=at)
