"""Desired states: made from the tables, counted up, signed by the director, kept as issued.

(`epoch`, `counter`) of a device only ever rises: the counter within the transaction that
changes what is wanted, the epoch when the database turned out to be an old one.
"""

from collections.abc import Mapping

import msgspec
from sqlalchemy import select
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


def reissue(services: Services, session: Session, device: str) -> bytes:
    """Sign what the tables want of a device under a new version, and return the envelope.

    The caller commits the session and then publishes (`publish`).

    Raises:
        UserError: the state is larger than a device takes.
    """
    session.flush()
    # Whoever changes what a device is to be waits here for another who does: no two states
    # have one version, and the later one has all of the earlier.
    row = session.get_one(
        tables.Device, device, with_for_update={"key_share": True}, populate_existing=True
    )
    now = services.now()
    epoch = facts.epoch(session)
    last = session.get(tables.DesiredState, device, populate_existing=True)
    state = DesiredState(
        device=device,
        epoch=epoch,
        counter=last.counter + 1 if last and last.epoch == epoch else 1,
        issued_at=now,
        expires_at=now + LIFETIME_S,
        models=models(session, device),
        configuration=msgspec.json.decode(row.configuration, type=Configuration),
    )
    encoded = encode(state)
    if len(encoded) > MAX_STATE_BYTES:
        raise UserError(
            f"The desired state of {device} cannot be signed.",
            why=f"With {len(state.models)} models and its configuration it has {len(encoded)} "
            f"bytes, a device takes {MAX_STATE_BYTES}.",
            fix="Make the configuration smaller.",
        )
    envelope = sign(encoded, PayloadType.DESIRED, services.keys.director)
    session.merge(
        tables.DesiredState(
            device=device,
            epoch=state.epoch,
            counter=state.counter,
            issued_at=now,
            expires_at=state.expires_at,
            envelope=envelope,
        )
    )
    services.counters.add("desired.signed")
    return envelope


def current(services: Services, session: Session, device: str) -> bytes | None:
    """The envelope of a device's desired state, in a writing session; None where none is wanted.

    It is signed anew when half of its life is over, or when the epoch has risen. While a device
    has not yet said what it holds after a restore, it is told nothing.
    """
    row = session.get_one(tables.Device, device)
    last = session.get(tables.DesiredState, device)
    if row.unreconciled or last is None:
        return None
    stale = services.now() > last.expires_at - LIFETIME_S / 2
    if stale or last.epoch != facts.epoch(session):
        return reissue(services, session, device)
    return last.envelope


def publish(services: Services, envelopes: Mapping[str, bytes]) -> None:
    """Tell devices on the bus; whoever misses it is told at the next hello."""
    for device, envelope in envelopes.items():
        services.publisher(topic(device, Down.DESIRED), envelope)


def models(session: Session, device: str) -> dict[str, DesiredModel]:
    """What is wanted of a device, by model."""
    query = select(tables.DesiredModel).where(tables.DesiredModel.device == device)
    return {
        row.model: DesiredModel(
            release=row.release,
            variant=row.variant,
            release_version=row.release_version,
            rollout=row.rollout,
            attempt=row.attempt,
            nonce=row.nonce,
            trial=msgspec.json.decode(row.trial, type=TrialPolicy),
        )
        for row in session.scalars(
            query.order_by(tables.DesiredModel.model), execution_options={"populate_existing": True}
        )
    }


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
        )
    )
