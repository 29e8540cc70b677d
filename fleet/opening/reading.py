"""A batch's records as rows of the store: each body read by its kind, and written anew.

What is kept is what was understood, not what came: no device can put in what a reader stumbles
over. A record that cannot be read is kept as it came, under the kind `malformed`.
"""

from typing import Any

import msgspec

from cloud_sync.commands import CommandResult
from cloud_sync.evidence import Evidence
from cloud_sync.messages import (
    Batch,
    Gap,
    LedgerRecord,
    Record,
    RecordKind,
    SecurityRecord,
    StateRecord,
    Window,
)

MAX_SEQ = 2**62
MAX_RECORDS = 10_000
MALFORMED = "malformed"
_MAX_STREAM = 128
_MODEL = 128
_DIGEST = 71

Body = StateRecord | Window | Evidence | SecurityRecord | CommandResult | LedgerRecord | Gap

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    str(kind): msgspec.json.Decoder(body)
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
_encode = msgspec.json.Encoder().encode


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record as it is stored; `kind` is `malformed` where its body could not be read."""

    seq: int
    kind: str
    model: str
    release: str
    at: float | None
    body: bytes


class ReadBatch(msgspec.Struct, frozen=True, array_like=True):
    """A batch whose records are read; `key` is the id of the key that signed it."""

    device: str
    stream: str
    boot_id: str
    key: str
    rows: tuple[Row, ...]


def why_not(batch: Batch) -> str:
    """Why a batch cannot be stored, whatever its records hold; empty where it can."""
    if not (batch.stream.isprintable() and 0 < len(batch.stream) <= _MAX_STREAM):
        return "Its stream or its length is not allowed."
    if len(batch.records) > MAX_RECORDS:
        return "Its stream or its length is not allowed."
    if any(not 1 <= record.seq <= MAX_SEQ for record in batch.records):
        return "A sequence number is out of range."
    return ""


def read(batch: Batch, key: str = "", *, as_it_came: bool = False) -> ReadBatch:
    """Read every record of a batch; with `as_it_came` none."""
    device = batch.device
    rows = tuple(
        _row(record, None if as_it_came else _body(device, record)) for record in batch.records
    )
    return ReadBatch(device, batch.stream, batch.boot_id, key, rows)


def decode_body(row: Row) -> Body:
    """The body of a row that was read."""
    body = _DECODERS[row.kind].decode(row.body)
    assert isinstance(body, Body)
    return body


def _body(device: str, record: Record) -> Body | None:
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
    assert isinstance(body, Body)
    return body


def _row(record: Record, body: Body | None) -> Row:
    if body is None:
        return Row(record.seq, MALFORMED, "", "", record.at, bytes(record.body))
    if isinstance(body, StateRecord):
        model, release = body.model, body.state.release
    else:
        model, release = getattr(body, "model", ""), getattr(body, "release", "")
    return Row(
        record.seq,
        record.kind,
        _fit(model, _MODEL),
        _fit(release, _DIGEST),
        record.at,
        _encode(body),
    )


def _fit(text: str, limit: int) -> str:
    # As `fleet.services.columns.fit`; most texts need nothing.
    if len(text) <= limit and "\0" not in text:
        return text
    return text.replace("\0", "")[:limit]
