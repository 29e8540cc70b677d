"""Desired states: made from the tables, counted up, signed by the director, kept as issued.

(`epoch`, `counter`) of a device only ever rises: the counter within the transaction that
changes what is wanted, the epoch when the database turned out to be an old one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from cloud_sync.messages import (
    Configuration,
    DesiredModel,
    DesiredState,
    Down,
    TrialPolicy,
    encode,
    topic,
)
from cloud_sync.trust import PayloadType, sign
from edgeml.errors import UserError
from fleet.db import tables
from fleet.services import facts
from fleet.services.context import Services

LIFETIME_S = 90 * 86400.0
# A device returns the envelope, base64 and escaped, within its hello, which has a bound itself.
MAX_STATE_BYTES = 256 << 10
_TOGETHER = 500


def reissue(services: Services, session: Session, device: str) -> bytes:
    """Sign what the tables want of a device under a new version, and return the envelope.

    The caller commits the session and then publishes (`publish`).

    Raises:
        UserError: the state is larger than a device takes.
    """
    return reissue_all(services, session, [device])[device]


def reissue_all(services: Services, session: Session, devices: Iterable[str]) -> dict[str, bytes]:
    """Sign what the tables want of devices under new versions; returns the envelopes by device.

    The caller commits the session and then publishes (`publish`).

    Raises:
        UserError: a state is larger than a device takes.
    """
    session.flush()
    signed: dict[str, bytes] = {}
    for names in batched(sorted(set(devices)), _TOGETHER):
        signed |= _reissue(services, session, names)
    services.counters.add("desired.signed", len(signed))
    return signed


def _reissue(services: Services, session: Session, names: Sequence[str]) -> dict[str, bytes]:
    device, issued = tables.Device, tables.DesiredState
    # Whoever changes what a device is to be waits here for another who does: no two states
    # have one version, and the later one has all of the earlier.
    configurations = session.execute(
        select(device.id, device.configuration)
        .where(device.id.in_(names))
        .order_by(device.id)
        .with_for_update(key_share=True)
    ).all()
    last = {
        name: (epoch, counter)
        for name, epoch, counter in session.execute(
            select(issued.device, issued.epoch, issued.counter).where(issued.device.in_(names))
        )
    }
    wanted = models_of(session, names)
    now, epoch = services.now(), facts.epoch(session)
    rows = []
    for name, configuration in configurations:
        before, counter = last.get(name, (epoch, 0))
        state = DesiredState(
            device=name,
            epoch=epoch,
            counter=counter + 1 if before == epoch else 1,
            issued_at=now,
            expires_at=now + LIFETIME_S,
            models=wanted.get(name, {}),
            configuration=msgspec.json.decode(configuration, type=Configuration),
        )
        rows.append(_row(state, sign(_encoded(state), PayloadType.DESIRED, services.keys.director)))
    # Not through the object mapper, which takes five times as long; what it holds is read anew.
    session.execute(delete(issued).where(issued.device.in_(names)))
    session.connection().execute(insert(issued), rows)
    for held in list(session.identity_map.values()):
        if isinstance(held, issued):
            session.expire(held)
    return {row["device"]: row["envelope"] for row in rows}


def _row(state: DesiredState, envelope: bytes) -> dict[str, Any]:
    return {
        "device": state.device,
        "epoch": state.epoch,
        "counter": state.counter,
        "issued_at": state.issued_at,
        "expires_at": state.expires_at,
        "envelope": envelope,
    }


def _encoded(state: DesiredState) -> bytes:
    encoded = encode(state)
    if len(encoded) > MAX_STATE_BYTES:
        raise UserError(
            f"The desired state of {state.device} cannot be signed.",
            why=f"With {len(state.models)} models and its configuration it has {len(encoded)} "
            f"bytes, a device takes {MAX_STATE_BYTES}.",
            fix="Make the configuration smaller.",
        )
    return encoded


def current(services: Services, session: Session, device: str) -> bytes | None:
    """The envelope of a device's desired state, in a writing session; None where none is wanted.

    It is signed anew when half of its life is over, when the epoch has risen, and when the
    director's key was rotated. While a device has not yet said what it holds after a restore, it
    is told nothing.
    """
    row = session.get_one(tables.Device, device)
    last = session.get(tables.DesiredState, device)
    if row.unreconciled or last is None:
        return None
    stale = services.now() > last.expires_at - LIFETIME_S / 2
    rotated = services.keys.director_id.encode() not in last.envelope
    if stale or rotated or last.epoch != facts.epoch(session):
        return reissue(services, session, device)
    return last.envelope


def publish(services: Services, envelopes: Mapping[str, bytes], *, patient: bool = False) -> None:
    """Tell devices on the bus; whoever misses it is told at the next hello.

    With patience a whole wave finds room there, as the broker takes it.
    """
    for device, envelope in envelopes.items():
        services.publisher(topic(device, Down.DESIRED), envelope, patient=patient)


def models(session: Session, device: str) -> dict[str, DesiredModel]:
    """What is wanted of a device, by model."""
    return models_of(session, [device]).get(device, {})


def models_of(session: Session, devices: Sequence[str]) -> dict[str, dict[str, DesiredModel]]:
    """What is wanted of devices, by device and model."""
    table = tables.DesiredModel
    query = select(table).where(table.device.in_(devices)).order_by(table.device, table.model)
    found: dict[str, dict[str, DesiredModel]] = {}
    for row in session.scalars(query, execution_options={"populate_existing": True}):
        found.setdefault(row.device, {})[row.model] = DesiredModel(
            release=row.release,
            variant=row.variant,
            release_version=row.release_version,
            rollout=row.rollout,
            attempt=row.attempt,
            nonce=row.nonce,
            trial=msgspec.json.decode(row.trial, type=TrialPolicy),
            data_budget_bytes=row.data_budget_bytes,
            until=stage(row.until),
            switch_at=row.switch_at,
            switch_by=row.switch_by,
        )
    return found


def stage(until: str) -> Literal["", "prepared", "trial"]:
    """How far a device is let go, as the column has it."""
    match until:
        case "prepared" | "trial":
            return until
        case _:
            return ""


def want(session: Session, device: str, model: str, wanted: DesiredModel | None) -> None:
    """Set what is wanted of one model on a device; None for nothing."""
    if wanted is None:
        row = session.get(tables.DesiredModel, (device, model))
        if row is not None:
            session.delete(row)
        return
    session.merge(
        tables.DesiredModel(
            device=device,
            model=model,
            release=wanted.release,
            variant=wanted.variant,
            release_version=wanted.release_version,
            rollout=wanted.rollout,
            attempt=wanted.attempt,
            nonce=wanted.nonce,
            trial=msgspec.json.encode(wanted.trial).decode(),
            data_budget_bytes=wanted.data_budget_bytes,
            until=wanted.until,
            switch_at=wanted.switch_at,
            switch_by=wanted.switch_by,
        )
    )


def batched(names: Iterable[str], number: int) -> Iterator[tuple[str, ...]]:
    """Tuples of at most so many names, in their order.

    >>> list(batched("abc", 2))
    [('a', 'b'), ('c',)]
    """
    rest = iter(names)
    while found := tuple(islice(rest, number)):
        yield found
