"""Records from devices' outboxes: verified, stored once, acknowledged after the commit.

Many batches go into one transaction. What was stored of a stream is kept as a mark (all up to
`through`) and ranges above it, so that a repeated record is known even when its row is long
gone; a gap record accounts for what the device itself has dropped.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_sync.commands import CommandResult
from cloud_sync.evidence import Evidence
from cloud_sync.messages import (
    Ack,
    Batch,
    Down,
    Gap,
    LedgerRecord,
    Record,
    RecordKind,
    SecurityRecord,
    StateRecord,
    Window,
    decode,
    encode,
    topic,
)
from cloud_sync.ranges import runs
from cloud_sync.trust import PayloadType, PublicKey, key_id, open_envelope, sign
from edgeml.errors import RemoteError, TrustError
from fleet.db import tables
from fleet.db.bulk import insert_rows
from fleet.intervals import IntervalSet, Mark
from fleet.resources import Page, TelemetryWindow
from fleet.services import commands, ledger, reported, security
from fleet.services.columns import fit
from fleet.services.context import Services

MAX_SEQ = 2**62
MAX_RANGES = 4096
MAX_RECORDS = 10_000
MALFORMED = "malformed"
_MAX_STREAM = 128
_MAX_PAGE = 10_000

_Known = StateRecord | Window | Evidence | SecurityRecord | CommandResult | LedgerRecord | Gap
_Body = _Known | None

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(body)
    for kind, body in (
        (RecordKind.STATE, StateRecord),
        (RecordKind.TELEMETRY, Window),
        (RecordKind.EVIDENCE, Evidence),
        (RecordKind.SECURITY, SecurityRecord),
        (RecordKind.RESULT, CommandResult),
        (RecordKind.LEDGER, LedgerRecord),
        (RecordKind.GAP, Gap),
    )
}


@dataclass(frozen=True)
class SignedBatch:
    """A batch that its device has signed, and the envelope that proves it."""

    batch: Batch
    envelope: bytes


@dataclass
class _Open:
    """What a transaction gathers before it writes."""

    now: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    marks: dict[tuple[str, str], Mark] = field(default_factory=dict)
    boots: dict[tuple[str, str], str] = field(default_factory=dict)
    duplicates: int = 0
    malformed: int = 0
    notable: bool = False
    as_it_came: bool = False


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
        _check(batch)
    except RemoteError as error:
        security.unreadable(services, device, error)
        raise
    if batch.device != device:
        refusal = TrustError("A batch was refused.", why=f"It speaks of {batch.device[:64]!r}.")
        security.record(services, "forged-batch", device, str(refusal))
        raise refusal
    return SignedBatch(batch, envelope)


def store(
    services: Services, batches: Sequence[SignedBatch], *, as_it_came: bool = False
) -> list[bytes]:
    """Store batches in one transaction; returns the signed ack of each, in their order.

    Batches of one stream share their ack: it says what is stored after all of them. Nothing
    is acknowledged that is not committed. A record that cannot be read is counted, kept as it
    came, and acknowledged: sent again it would be no better. With `as_it_came` none is read.
    """
    work = _Open(now=services.now(), as_it_came=as_it_came)
    with services.database.write() as session:
        for signed in batches:
            _take(services, session, signed, work)
        if work.rows:
            insert_rows(session, tables.Record, work.rows)
        for (device, stream), mark in work.marks.items():
            _keep_mark(session, device, stream, mark, work)
        for device in {signed.batch.device for signed in batches}:
            row = session.get_one(tables.Device, device)
            row.online = True
            row.last_seen = work.now
    counters = services.counters
    counters.add("ingest.batches", len(batches))
    counters.add("ingest.records", len(work.rows))
    if work.duplicates:
        counters.add("ingest.duplicates", work.duplicates)
    if work.malformed:
        counters.add("ingest.malformed", work.malformed)
    if work.notable:
        services.changes.announce()
    acks = {key: _ack(services, *key, mark) for key, mark in work.marks.items()}
    return [acks[signed.batch.device, signed.batch.stream] for signed in batches]


def apart(signed: SignedBatch) -> list[SignedBatch]:
    """A batch in two halves, each with the envelope of the whole."""
    found, middle = signed.batch.records, len(signed.batch.records) // 2
    return [
        SignedBatch(msgspec.structs.replace(signed.batch, records=half), signed.envelope)
        for half in (found[:middle], found[middle:])
    ]


def set_aside(services: Services, signed: SignedBatch, fault: Exception) -> bytes:
    """Keep a batch unread that the store cannot take in, and say so; returns its ack.

    Sent again it would be no better, and its stream would wait for it for ever.
    """
    (ack,) = store(services, [signed], as_it_came=True)
    services.counters.add("ingest.set-aside", len(signed.batch.records))
    seqs = [record.seq for record in signed.batch.records]
    detail = f"seq {seqs} of stream {signed.batch.stream}: {type(fault).__name__}: {fault}"
    security.record(services, "record-set-aside", signed.batch.device, detail)
    return ack


def publish_ack(services: Services, device: str, envelope: bytes) -> None:
    """Tell a device on the bus what is stored."""
    services.publisher(topic(device, Down.ACK), envelope)


def telemetry(
    services: Services, *, device: str = "", model: str = "", after: int = 0, limit: int = 100
) -> Page[TelemetryWindow]:
    """Windows of telemetry, newest first."""
    table = tables.Record
    limit = max(1, min(limit, _MAX_PAGE))
    query = select(table).where(table.kind == str(RecordKind.TELEMETRY))
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


def _check(batch: Batch) -> None:
    named = batch.stream.isprintable() and 0 < len(batch.stream) <= _MAX_STREAM
    if not named or len(batch.records) > MAX_RECORDS:
        raise RemoteError("A batch was refused.", why="Its stream or its length is not allowed.")
    if any(not 1 <= record.seq <= MAX_SEQ for record in batch.records):
        raise RemoteError("A batch was refused.", why="A sequence number is out of range.")


def _take(services: Services, session: Session, signed: SignedBatch, work: _Open) -> None:
    batch = signed.batch
    key = (batch.device, batch.stream)
    before = mark = work.marks.get(key) or _mark(session, key)
    fresh: list[tuple[Record, _Body]] = []
    seen: set[int] = set()
    for record in batch.records:
        if record.seq in seen or record.seq in mark:
            work.duplicates += 1
            continue
        body = None if work.as_it_came else _read(batch.device, record)
        if isinstance(body, Gap):
            mark = mark.with_range(body.first, body.last)
        seen.add(record.seq)
        fresh.append((record, body))
    for first, last in runs(seen):
        mark = mark.with_range(first, last)
    work.marks[key] = before
    if len(mark.above.ranges) > MAX_RANGES:
        # Nothing of it is stored or acknowledged: such a stream is no outbox of ours.
        services.counters.add("ingest.too-many-ranges")
        return
    work.marks[key] = mark
    work.boots[key] = fit(batch.boot_id, 128)
    work.rows += [_row(batch, record, body, work.now) for record, body in fresh]
    work.malformed += sum(body is None for _, body in fresh)
    states = [body for _, body in fresh if isinstance(body, StateRecord)]
    evidence = [body for _, body in fresh if isinstance(body, Evidence)]
    refused = [body for _, body in fresh if isinstance(body, SecurityRecord)]
    results = [body for _, body in fresh if isinstance(body, CommandResult)]
    for said in states:
        reported.apply_model(
            session,
            batch.device,
            fit(said.model, 128),
            said.state,
            stream=batch.stream,
            now=work.now,
            snapshot=False,
        )
    if evidence:
        _keep_evidence(session, signed, evidence, work.now)
    if refused:
        security.keep(services, session, batch.device, refused)
    if results:
        commands.keep(services, session, batch.device, results)
    spent = [body for _, body in fresh if isinstance(body, LedgerRecord)]
    ledger.keep(session, batch.device, spent, work.now)
    work.notable |= bool(states or evidence or refused or results)


def _read(device: str, record: Record) -> _Body:
    """A record's body; None where it cannot be read or is not true to its kind."""
    decoder = _DECODERS.get(record.kind)
    if decoder is None:
        return None
    try:
        body = decoder.decode(record.body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    if isinstance(body, Gap) and not 1 <= body.first <= body.last < record.seq:
        return None
    if isinstance(body, Evidence) and body.device != device:
        return None
    assert isinstance(body, _Known)
    return body


def _row(batch: Batch, record: Record, body: _Body, now: float) -> dict[str, Any]:
    release = body.state.release if isinstance(body, StateRecord) else getattr(body, "release", "")
    return {
        "device": batch.device,
        "stream": batch.stream,
        "seq": record.seq,
        "kind": MALFORMED if body is None else str(record.kind),
        "model": fit(str(getattr(body, "model", "")), 128),
        "release": fit(str(release), 71),
        "at": record.at,
        "received_at": now,
        # What was understood, not what came: no device can put in what a reader stumbles over.
        "body": bytes(record.body) if body is None else msgspec.json.encode(body),
    }


def _keep_evidence(
    session: Session, signed: SignedBatch, records: Iterable[Evidence], now: float
) -> None:
    device = signed.batch.device
    proof = tables.SignedBatch(device=device, received_at=now, envelope=signed.envelope)
    session.add(proof)
    session.flush()
    for record in records:
        session.add(
            tables.Evidence(
                device=device,
                model=fit(record.model, 128),
                release=fit(record.release, 71),
                variant=fit(record.variant, 71),
                rollout=_rollout(session, device, record),
                stage=fit(record.stage, 16),
                nonce=fit(record.nonce, 64),
                received_at=now,
                document=msgspec.json.encode(record),
                signed_batch=proof.id,
            )
        )


def _rollout(session: Session, device: str, record: Evidence) -> str:
    """The rollout that asked for this evidence: the one whose nonce it returns."""
    query = select(tables.Assignment.rollout).where(
        tables.Assignment.device == device, tables.Assignment.nonce == fit(record.nonce, 64)
    )
    return (session.scalars(query).first() or "") if record.nonce else ""


def _mark(session: Session, key: tuple[str, str]) -> Mark:
    row = session.get(tables.Stream, key, with_for_update=True)
    if row is None:
        return Mark()
    ranges = msgspec.json.decode(row.ranges, type=tuple[tuple[int, int], ...])
    return Mark(row.through, IntervalSet(ranges))


def _keep_mark(session: Session, device: str, stream: str, mark: Mark, work: _Open) -> None:
    row = session.get(tables.Stream, (device, stream))
    if row is None:
        row = tables.Stream(device=device, stream=stream, first_at=work.now)
        session.add(row)
    row.through = mark.through
    row.ranges = msgspec.json.encode(mark.above.ranges).decode()
    row.boot_id = work.boots.get((device, stream), row.boot_id or "")
    row.last_at = work.now


def _ack(services: Services, device: str, stream: str, mark: Mark) -> bytes:
    ack = Ack(
        device=device,
        stream=stream,
        through=mark.through,
        ranges=mark.above.ranges,
        at=services.now(),
    )
    services.counters.add("ingest.acks")
    return sign(encode(ack), PayloadType.ACK, services.keys.director)
