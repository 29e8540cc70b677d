"""Captured frames: taken from devices that are asked for them, listed, given away, forgotten.

The folder (`fleet.samples`) is what there is, the table its index: a frame is whole on the disk
before it is in the table, and in the table before its device is told so and deletes its own.
`reconcile` puts the table right after a database was restored.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from cloud_sync.messages import Configuration, decode
from cloud_sync.release import is_digest
from cloud_sync.samples import (
    MAX_LINE_BYTES,
    MAX_SAMPLE_BYTES,
    CaptureReason,
    SampleHeld,
    SampleOffer,
    confidence_of,
)
from cloud_sync.trust import PayloadType, key_id, open_envelope
from edgeml.errors import TrustError, UserError
from fleet.db import tables
from fleet.problem import Forbidden, NotFound
from fleet.resources import Page, SampleInfo
from fleet.rollouts.selector import EVERYTHING, Selector, parse_selector
from fleet.samples import STALE_S
from fleet.services import reported, security
from fleet.services.columns import fit
from fleet.services.context import Services
from fleet.services.retention import DAY_S, Retention
from fleet.services.selection import chosen

MAX_PAGE = 1000
_AT_ONCE = 500
_BLOCKS = 8 << 10  # what a small frame and its line take of a disk, whose blocks have 4 KiB
_MOST_LEVELS = 32  # of lists and objects in a line of results
_LATEST = 1e10  # Unix seconds: the year 2286
_PAIRS = select(tables.Sample.model, tables.Sample.device).distinct()
_REASONS = tuple(str(reason) for reason in CaptureReason)
_TOLD = frozenset({"t", "model", "release", "release_version"})  # what is in columns of its own


def offer(services: Services, device: str, envelope: bytes) -> SampleHeld:
    """Take a device's word of a frame; returns how much of it is here.

    Raises:
        TrustError: the device did not sign it, or it speaks of another.
        Forbidden: nobody asked this device for frames of this model.
        UserError: it is too large; it will never be taken.
        RemoteError: it cannot be read.
        DeviceError: the disk is full.
    """
    said = _opened(services, device, envelope)
    _require_asked(services, device, said.model)
    if not 0 < said.size <= MAX_SAMPLE_BYTES or not is_digest(said.digest):
        raise UserError(
            "A captured frame was refused.",
            why=f"It has {said.size} bytes; from 1 to {MAX_SAMPLE_BYTES} are taken.",
        )
    if len(msgspec.json.encode(said.line)) > MAX_LINE_BYTES:
        raise UserError(
            "A captured frame was refused.", why="Its line of results is too long to be kept."
        )
    if not _is_plain(said.line):
        raise UserError(
            "A captured frame was refused.",
            why="Its line of results is nested too deeply, or has a number of more than 64 bits.",
        )
    if _is_stored(services, said):
        return SampleHeld(digest=said.digest, size=said.size, stored=True)
    size = services.samples.begin(said)
    if size < said.size:
        return SampleHeld(digest=said.digest, size=size)
    # A fleet that was killed between the last byte and the commit goes on here.
    return take(services, device, said.model, said.digest, offset=size, piece=b"")


def take(
    services: Services, device: str, model: str, digest: str, *, offset: int, piece: bytes
) -> SampleHeld:
    """Take a piece of a frame that was offered; with the last one it is stored.

    Raises:
        NotFound: it was not offered.
        Forbidden: nobody asks this device for frames of this model any more.
        Conflict: it is whole and not what its digest says.
        DeviceError: the disk is full.
    """
    _require_asked(services, device, model)
    said = services.samples.coming(model, device, digest)
    if said is None:
        raise NotFound("There is no such captured frame.", fix="Offer it first.")
    size = services.samples.append(said, offset, piece)
    if size == said.size:
        _store(services, said, services.now())
    return SampleHeld(digest=digest, size=size, stored=size == said.size)


def list_samples(
    services: Services,
    *,
    model: str = "",
    device: str = "",
    selector: str = "",
    reasons: Sequence[str] = (),
    after: int = 0,
    limit: int = 100,
    scope: Selector = EVERYTHING,
    oldest_first: bool = False,
) -> Page[SampleInfo]:
    """The frames of a scope's devices, newest first.

    Args:
        services: the fleet.
        model: only of this one.
        device: only of this one.
        selector: only of devices that this label selector chooses.
        reasons: only those that were kept for one of these.
        after: the last one of the page before.
        limit: how many at most.
        scope: what whoever asks may see.
        oldest_first: in the order in which they came.

    Raises:
        UserError: the selector or a reason cannot be read.
    """
    table = tables.Sample
    unknown = sorted(set(reasons) - set(_REASONS))
    if unknown:
        raise UserError(
            f"{unknown[0][:40]!r} is no reason to keep a frame.",
            fix=f"Write one of {', '.join(_REASONS)}.",
        )
    where: list[ColumnElement[bool]] = [chosen(scope, table.device)]
    where += [table.model == model] if model else []
    where += [table.device == device] if device else []
    where += [chosen(parse_selector(selector), table.device)] if selector else []
    where += [table.reason.in_(reasons)] if reasons else []
    if after:
        where.append(table.id > after if oldest_first else table.id < after)
    order = table.id.asc() if oldest_first else table.id.desc()
    limit = max(1, min(limit, MAX_PAGE))
    with services.database.read() as session:
        rows = list(session.scalars(select(table).where(*where).order_by(order).limit(limit + 1)))
    return {
        "items": [_info(row) for row in rows[:limit]],
        "next": str(rows[limit - 1].id) if len(rows) > limit else None,
    }


def forget(services: Services, keep: Retention) -> int:
    """Delete what is too old, and of each model the oldest of what is too much; how many."""
    table = tables.Sample
    old = table.received_at < services.now() - keep.samples_days * DAY_S
    forgotten = _forget(services, old)
    with services.database.read() as session:
        sums = select(table.model, func.sum(table.size + _BLOCKS)).group_by(table.model)
        full = [model for model, size in session.execute(sums) if size > keep.samples_bytes]
    for model in full:
        running = func.sum(table.size + _BLOCKS).over(order_by=table.id.desc()).label("running")
        newest = select(table.id, running).where(table.model == model).subquery()
        above = select(func.max(newest.c.id)).where(newest.c.running > keep.samples_bytes)
        with services.database.read() as session:
            floor = session.scalar(above)
        forgotten += _forget(services, (table.model == model) & (table.id <= (floor or 0)))
    return forgotten


def reconcile(services: Services) -> int:
    """Have the table say what there is: take up frames it does not know; returns how many.

    Rows whose frame is gone go, and so do what began to come long ago or is not asked for any more,
    and old frames without a row whose device is not let in.
    """
    table = tables.Sample
    with services.database.read() as session:
        pairs = {(row[0], row[1]) for row in session.execute(_PAIRS)}
    taken = 0
    for model, device in sorted(pairs | set(services.samples.devices())):
        # First the rows: a frame is whole on the disk before it has one.
        with services.database.read() as session:
            known = _known(session, model, device)
        there = services.samples.digests(model, device)
        taken += _take_up(services, model, device, there - known)
        lost = sorted(known - there)
        of_it = (table.model == model) & (table.device == device)
        for begin in range(0, len(lost), _AT_ONCE):
            some = table.digest.in_(lost[begin : begin + _AT_ONCE])
            with services.database.write() as session:
                session.execute(delete(table).where(of_it, some))
        older_s = STALE_S if _is_asked(services, device, model) else 0.0
        services.samples.sweep(model, device, older_s)
    return taken


def _opened(services: Services, device: str, envelope: bytes) -> SampleOffer:
    key = reported.device_key(services, device)
    try:
        payload = open_envelope(envelope, {key_id(key): key}, PayloadType.SAMPLE)
        said = decode(payload, SampleOffer)
        if said.device != device:
            raise TrustError("A captured frame was refused.", why="It is of another device.")
    except TrustError as error:
        security.forged(
            services,
            "forged-sample",
            device,
            error,
            envelope=envelope,
            payload=PayloadType.SAMPLE,
        )
        raise
    return said


def _require_asked(services: Services, device: str, model: str) -> None:
    """Refuse frames that the device's configuration does not ask for: they may show people."""
    if not _is_asked(services, device, model):
        raise Forbidden(
            f"Frames of {model[:64]} are not asked for.",
            why="The device's configuration does not have upload = true for this model.",
            fix="The device keeps them, until its configuration says so.",
        )


def _is_asked(services: Services, device: str, model: str) -> bool:
    with services.database.read() as session:
        text = session.scalar(select(tables.Device.configuration).where(tables.Device.id == device))
    policy = msgspec.json.decode(text or "{}", type=Configuration).capture.get(model)
    return policy is not None and policy.upload


def _is_stored(services: Services, said: SampleOffer) -> bool:
    with services.database.read() as session:
        return session.scalar(select(tables.Sample.id).where(*_same(said))) is not None


def _same(said: SampleOffer) -> tuple[ColumnElement[bool], ...]:
    table = tables.Sample
    return (
        table.device == said.device,
        table.model == said.model,
        table.digest == said.digest,
    )


def _store(services: Services, said: SampleOffer, received_at: float) -> None:
    with services.database.write() as session:
        services.database.one_at_a_time(session, "samples")
        if session.scalar(select(tables.Sample.id).where(*_same(said))) is not None:
            return
        # Never a number that was given before, also not by a database that was restored since: who
        # pulls goes on after the last.
        last = session.scalar(select(func.max(tables.Sample.id))) or 0
        session.add(_row(said, max(last + 1, round(services.now() * 1000)), received_at))
    services.counters.add("samples.stored")


def _row(said: SampleOffer, number: int, received_at: float) -> tables.Sample:
    line = said.line
    release, at = line.get("release"), line.get("t")
    is_time = isinstance(at, int | float) and 0 <= at < _LATEST
    return tables.Sample(
        id=number,
        device=said.device,
        model=said.model,
        digest=said.digest,
        release=release if isinstance(release, str) and is_digest(release) else "",
        version=fit(str(line.get("release_version", "")), 128),
        captured_at=float(at) if is_time and at is not None else received_at,
        received_at=received_at,
        reason=str(said.reason),
        confidence=confidence_of(line),
        media_type=str(said.media_type),
        size=said.size,
        line=msgspec.json.encode(line),
    )


def _is_plain(value: Any, levels: int = _MOST_LEVELS) -> bool:
    """Whether whoever lists or pulls frames can read this part of a line.

    >>> _is_plain({"top": [["7", 0.5]]}), _is_plain({"t": 1 << 64})
    (True, False)
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return levels > 0 and all(_is_plain(one, levels - 1) for one in value)
    return not isinstance(value, int) or abs(value) < 1 << 63


def _forget(services: Services, which: ColumnElement[bool]) -> int:
    """Delete frames and then their rows, so that one that is cut short is done again."""
    table, total = tables.Sample, 0
    while True:
        with services.database.read() as session:
            rows = list(session.scalars(select(table).where(which).limit(_AT_ONCE)))
        for row in rows:
            services.samples.remove(row.model, row.device, row.digest)
        if rows:
            with services.database.write() as session:
                session.execute(delete(table).where(table.id.in_([row.id for row in rows])))
        total += len(rows)
        if len(rows) < _AT_ONCE:
            return total


def _known(session: Session, model: str, device: str) -> set[str]:
    table = tables.Sample
    found = select(table.digest).where(table.model == model, table.device == device)
    return set(session.scalars(found))


def _take_up(services: Services, model: str, device: str, unknown: set[str]) -> int:
    """Give frames a row, of a device that is let in; what a decommissioned one had sent goes."""
    with services.database.read() as session:
        row = session.get(tables.Device, device)
    is_enrolled, taken = row is not None and row.revoked_at is None, 0
    for digest in sorted(unknown):
        said = services.samples.path(model, device, digest, ".json")
        offered = services.samples.read(said)
        if offered is None:
            continue
        at = said.stat().st_mtime
        if is_enrolled:
            _store(services, offered, at)
            taken += 1
        elif time.time() - at > STALE_S:
            services.samples.remove(model, device, digest)
    return taken


def _info(row: tables.Sample) -> SampleInfo:
    line: Mapping[str, Any] = msgspec.json.decode(row.line)
    return {
        "id": row.id,
        "device": row.device,
        "model": row.model,
        "digest": row.digest,
        "release": row.release,
        "version": row.version,
        "captured_at": row.captured_at,
        "received_at": row.received_at,
        "reason": row.reason,
        "confidence": row.confidence,
        "media_type": row.media_type,
        "size": row.size,
        "result": {key: value for key, value in line.items() if key not in _TOLD},
    }
