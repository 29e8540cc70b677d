"""What follows from records that are more than telemetry, in the transaction that stores them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from cloud_sync.commands import CommandResult
from cloud_sync.evidence import Evidence
from cloud_sync.messages import LedgerRecord, RecordKind, SecurityRecord, StateRecord
from fleet.db import tables
from fleet.opening.reading import ReadBatch, decode_body
from fleet.services import commands, ledger, reported_models, security
from fleet.services.columns import fit
from fleet.services.context import Services

_Columns = dict[str, Any]
_FETCHED = frozenset({RecordKind.STATE, RecordKind.EVIDENCE})


@dataclass(frozen=True)
class OpenedBatch:
    """A batch that was verified and read at once, and its envelope."""

    read: ReadBatch
    envelope: bytes


@dataclass(frozen=True)
class Fetched:
    """What is known of devices that say more than telemetry, fetched for all of them at once.

    The session finds assignments by their keys for as long as this holds them. `proven` is what
    `finish` writes: envelopes, each with the evidence that it proves.
    """

    models: dict[tuple[str, str], tables.ReportedModel] = field(default_factory=dict)
    assignments: Sequence[tables.Assignment] = ()
    lines: ledger.Lines = field(default_factory=ledger.Lines)
    proven: list[tuple[_Columns, list[_Columns]]] = field(default_factory=list)

    @cached_property
    def rollouts(self) -> dict[tuple[str, str], str]:
        """The open rollout that gave a device a nonce, by both."""
        return {(place.device, place.nonce): place.rollout for place in self.assignments}


def fetch(session: Session, batches: Iterable[ReadBatch]) -> Fetched:
    """Fetch what `heed` will ask for, one query a table instead of some for each record."""
    rows = [(batch.device, row) for batch in batches for row in batch.rows]
    spent = [(device, decode_body(row)) for device, row in rows if row.kind == RecordKind.LEDGER]
    lines = ledger.fetch(
        session, ((d, said) for d, said in spent if isinstance(said, LedgerRecord))
    )
    devices = sorted({device for device, row in rows if row.kind in _FETCHED})
    if not devices:
        return Fetched(lines=lines)
    model, place, rollout = tables.ReportedModel, tables.Assignment, tables.Rollout
    moving = select(rollout.id).where(rollout.finished_at.is_(None))
    known = session.scalars(select(model).where(model.device.in_(devices)))
    return Fetched(
        {(row.device, row.model): row for row in known},
        session.scalars(
            select(place).where(place.device.in_(devices), place.rollout.in_(moving))
        ).all(),
        lines,
    )


def finish(session: Session, fetched: Fetched) -> None:
    """Write what `heed` has gathered, each table in one go."""
    if not fetched.proven:
        return
    # Not through the object mapper, which takes several times as long.
    connection, table = session.connection(), tables.SignedBatch
    into = insert(table).returning(table.id, sort_by_parameter_order=True)
    numbers = connection.scalars(into, [proof for proof, _ in fetched.proven])
    evidence = [
        one | {"signed_batch": number}
        for number, (_, proven) in zip(numbers.all(), fetched.proven, strict=True)
        for one in proven
    ]
    connection.execute(insert(tables.Evidence), evidence)


def heed(
    services: Services,
    session: Session,
    one: OpenedBatch,
    told: Sequence[object],
    *,
    fetched: Fetched,
    now: float,
) -> bool:
    """Take to heart what records say; `finish` comes after the last.

    Args:
        services: the fleet.
        session: the one that stores them.
        one: the batch that they came in.
        told: the bodies of those that were not known.
        fetched: what is known of the devices of this transaction.
        now: Unix seconds.

    Returns:
        Whether anybody who watches should be told.
    """
    device = one.read.device
    states = [body for body in told if isinstance(body, StateRecord)]
    evidence = [body for body in told if isinstance(body, Evidence)]
    refused = [body for body in told if isinstance(body, SecurityRecord)]
    results = [body for body in told if isinstance(body, CommandResult)]
    for said in states:
        model = fit(said.model, 128)
        fetched.models[device, model] = reported_models.apply_model(
            session,
            fetched.models.get((device, model)),
            device,
            model,
            said.state,
            stream=one.read.stream,
            now=now,
            snapshot=False,
        )
    if evidence:
        _keep_evidence(session, one, evidence, fetched, now)
    if refused:
        security.keep(services, session, device, refused)
    if results:
        commands.keep(services, session, device, results)
    spent = [body for body in told if isinstance(body, LedgerRecord)]
    ledger.keep(session, device, spent, now, fetched.lines)
    return bool(states or evidence or refused or results)


def _keep_evidence(
    session: Session, one: OpenedBatch, records: Iterable[Evidence], fetched: Fetched, now: float
) -> None:
    device = one.read.device
    proof = _Columns(device=device, received_at=now, envelope=one.envelope)
    kept = [
        _Columns(
            device=device,
            model=fit(record.model, 128),
            release=fit(record.release, 71),
            variant=fit(record.variant, 71),
            rollout=_rollout(session, device, record, fetched),
            stage=fit(record.stage, 16),
            nonce=fit(record.nonce, 64),
            received_at=now,
            document=msgspec.json.encode(record),
        )
        for record in records
    ]
    fetched.proven.append((proof, kept))


def _rollout(session: Session, device: str, record: Evidence, fetched: Fetched) -> str:
    """The rollout that asked for this evidence: the one whose nonce it returns."""
    if not record.nonce:
        return ""
    if found := fetched.rollouts.get((device, fit(record.nonce, 64))):
        return found
    query = select(tables.Assignment.rollout).where(
        tables.Assignment.device == device, tables.Assignment.nonce == fit(record.nonce, 64)
    )
    return session.scalars(query).first() or ""
