"""Changes of a layer, rolled out in waves like a release: observe, give, take back, complete.

The engine decides over them as over releases. What differs is here: a device that has its place in
the rollout is pinned to the layer's new revision, and answers with the version that it committed or
with the reason why it did not (`config_error`). When the last wave held, the revision is what holds
and the pins go; when it is taken back, devices are pinned to what they had.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.db import tables
from fleet.rollouts import Assign, DeviceObservation, Policy, RolloutState
from fleet.services import configuration, desired, observations
from fleet.services.configuration import as_layer
from fleet.services.configuration_effects import UNTOUCHED, Effects
from fleet.services.context import Services

MODEL = ":configuration"
_APPLIED = GateResult(
    name="configuration.applied",
    result=Verdict.PASS,
    reason="tried and committed on the device",
)


def observe(session: Session, row: tables.Rollout, policy: Policy) -> list[DeviceObservation]:
    """The devices of a rollout of a layer, as the engine sees them."""
    revision = session.get_one(tables.ConfigurationRevision, row.revision)
    change = as_layer(session.get_one(tables.ConfigurationLayer, revision.layer), revision)
    placed = _placed_rows(session, row.id)
    rows = observations.selected(session, row, policy)
    fresh = [device.id for device in rows if device.id not in placed]
    effects = Effects(configuration.load(session, fresh), change)
    busy = observations.busy(session, row)
    found = []
    for device in rows:
        seen = DeviceObservation(
            device=device.id,
            hardware_class=device.hardware_class,
            last_seen=device.last_seen,
            utc_offset_s=device.utc_offset_s,
        )
        if place := placed.get(device.id):
            taken = device in busy and place.restored_at is not None
            seen = msgspec.structs.replace(seen, busy=taken)
            found.append(_placed(seen, place, revision.digest))
            continue
        effect = effects.on(device.id)
        unfit = effect.unfit or ("" if effect.changes else UNTOUCHED)
        found.append(
            msgspec.structs.replace(
                seen,
                variant="" if unfit else revision.digest,
                unfit=unfit,
                busy=device.id in busy,
            )
        )
    return found


def assign_all(
    services: Services,
    session: Session,
    state: RolloutState,
    policy: Policy,
    actions: Sequence[Assign],
) -> list[str]:
    """Pin devices to the revision; returns those whose states must be signed."""
    del policy
    names = [action.device for action in actions]
    revision = session.get_one(tables.ConfigurationRevision, state.release)
    places = observations.places(session, state.id)
    before = _pin(session, names, revision.layer, dict.fromkeys(names, revision.digest))
    again = [name for name in names if name in places]
    changed = configuration.refresh(services, session, set(names) - set(again))
    changed += configuration.refresh(services, session, again, force=True)
    table, now = tables.Device, services.now()
    for row in _rows(session, table, names):
        place = places.get(row.id)
        if place is None:
            place = tables.Assignment(
                rollout=state.id,
                device=row.id,
                wave=state.wave,
                previous=before.get(row.id, ""),
                restored_at=None,
                tries=1,
            )
            session.add(place)
        else:
            place.tries += 1
        has_it = row.reported_config_version >= row.config_version
        place.again = False
        place.variant, place.nonce = revision.digest, ""
        place.attempt, place.assigned_at = row.config_version, now
        place.phase = str(Phase.COMMITTED) if has_it else ""
        place.reason, place.phase_at = "", now if has_it else None
    return configuration.signable(session, changed)


def restore_all(
    services: Services,
    session: Session,
    state: RolloutState,
    policy: Policy,
    devices: Sequence[str],
) -> list[str]:
    """Give devices what they had before; returns those whose states must be signed."""
    del policy
    revision = session.get_one(tables.ConfigurationRevision, state.release)
    places = observations.places(session, state.id)
    now = services.now()
    for device in devices:
        places[device].restored_at = now
    held = _pins(session, devices, revision.layer)
    # One that a later rollout of the layer has, or that it holds for, is not touched.
    mine = [device for device in devices if held.get(device) == revision.digest]
    _pin(session, mine, revision.layer, {d: places[d].previous for d in mine})
    return configuration.signable(session, configuration.refresh(services, session, mine))


def complete(services: Services, session: Session, row: tables.Rollout) -> list[str]:
    """Make the revision what holds, for late devices too; returns whose states must be signed."""
    revision = session.get_one(tables.ConfigurationRevision, row.revision)
    of = session.get_one(tables.ConfigurationLayer, revision.layer)
    of.number = revision.number
    pin = tables.ConfigurationPin
    session.execute(delete(pin).where(pin.layer == of.name))
    return configuration.signable(
        session, configuration.refresh(services, session, _everyone(session))
    )


def _placed_rows(session: Session, rollout: str) -> dict[str, Any]:
    """The places of devices in a rollout, as rows: objects would take ten times as long."""
    place = tables.Assignment
    columns = (
        place.device,
        place.variant,
        place.assigned_at,
        place.restored_at,
        place.phase,
        place.reason,
        place.phase_at,
        place.tries,
        place.again,
    )
    found = session.execute(select(*columns).where(place.rollout == rollout))
    return {row.device: row for row in found}


def _placed(seen: DeviceObservation, place: Any, revision: str) -> DeviceObservation:
    phase = Phase(place.phase) if place.phase else None
    return msgspec.structs.replace(
        seen,
        variant=revision,
        assigned_variant=place.variant,
        assigned_at=place.assigned_at,
        restored=place.restored_at is not None,
        phase=phase,
        reason=place.reason,
        settled_at=place.phase_at,
        tries=place.tries,
        again=place.again,
        gates=(_APPLIED,) if phase is Phase.COMMITTED else (),
    )


def _pins(session: Session, devices: Sequence[str], layer: str) -> dict[str, str]:
    pin = tables.ConfigurationPin
    query = select(pin.device, pin.revision).where(pin.layer == layer)
    return {
        device: digest
        for names in desired.batched(devices, 500)
        for device, digest in session.execute(query.where(pin.device.in_(names)))
    }


def _pin(
    session: Session, devices: Sequence[str], layer: str, to: Mapping[str, str]
) -> dict[str, str]:
    """Pin devices to revisions, "" for none; returns what they were pinned to."""
    before, pin = _pins(session, devices, layer), tables.ConfigurationPin
    for names in desired.batched(before, 500):
        session.execute(delete(pin).where(pin.layer == layer, pin.device.in_(names)))
    rows = [{"device": d, "layer": layer, "revision": to[d]} for d in devices if to[d]]
    if rows:
        session.execute(insert(pin), rows)
    return before


def _rows(
    session: Session, table: type[tables.Device], names: Sequence[str]
) -> Iterable[tables.Device]:
    for some in desired.batched(names, 500):
        yield from session.scalars(select(table).where(table.id.in_(some)))


def _everyone(session: Session) -> list[str]:
    table = tables.Device
    return list(session.scalars(select(table.id).where(table.revoked_at.is_(None))))
