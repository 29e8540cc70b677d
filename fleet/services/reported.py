"""What devices say of themselves in hellos, and what the broker says of their presence.

Many are taken to heart in one transaction, in their order. What they say of models, records do,
too: that is in `fleet.services.reported_models`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from cloud_sync.messages import DesiredState, Hello, ReportedModel, ReportedSource, decode
from cloud_sync.trust import PayloadType, PublicKey, key_id, open_envelope
from cloud_sync.trust.keys import load_public
from edgeml.errors import RemoteError, TrustError
from fleet.db import tables
from fleet.services import clones, configuration_answers, desired, facts, recovery, security
from fleet.services.columns import fit
from fleet.services.context import Services
from fleet.services.reported_models import apply_model, bounded

_MODEL = 128
_MAX_SOURCES = 64
_MAX_INT = 2**31 - 1
_MAX_COUNTER = 2**62
_DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Heard:
    """A hello that its device has signed, and the desired state that it returns."""

    device: str
    said: Hello
    held: DesiredState | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the broker says of a device's presence: a hint, no proof."""

    device: str
    online: bool


@dataclass
class _Known:
    """What is known of those who speak, fetched for all of them at once; their rows are held.

    The session finds rows by their keys for as long as `kept` holds them.
    """

    rows: dict[str, tables.Device]
    models: dict[str, dict[str, tables.ReportedModel]]
    kept: list[object]
    counted: list[str] = field(default_factory=list)
    notable: bool = False


def device_keys(services: Services, devices: Collection[str]) -> dict[str, PublicKey]:
    """The public keys of those devices that are enrolled and not revoked."""
    row = tables.Device
    query = select(row.id, row.public_key).where(
        row.id.in_(sorted(devices)), row.revoked_at.is_(None)
    )
    with services.database.read() as session:
        return {device: load_public(pem) for device, pem in session.execute(query)}


def device_key(services: Services, device: str) -> PublicKey:
    """The public key of an enrolled device.

    Raises:
        TrustError: there is no such device, or it was revoked.
    """
    if key := device_keys(services, [device]).get(device):
        return key
    raise TrustError(
        f"The device {device[:64]!r} is not enrolled here.",
        fix="Enrol it: edgeml fleet enroll, then edgeml agent enroll.",
    )


def hello(services: Services, device: str, envelope: bytes) -> bytes | None:
    """Take a device's hello; returns its desired state's envelope, if there is one.

    Raises:
        TrustError: the device did not sign it, or it speaks of another.
        RemoteError: it cannot be read.
    """
    (answer,) = take(services, [hear(services, device, envelope)])
    return answer


def hear(services: Services, device: str, envelope: bytes, key: PublicKey | None = None) -> Heard:
    """Verify and read a hello.

    Args:
        services: the fleet.
        device: who the channel (topic or token) says it is from.
        envelope: the DSSE envelope's JSON.
        key: the device's, of `device_keys`; looked up, if it is not given.

    Raises:
        TrustError: the device did not sign it, or it speaks of another.
        RemoteError: it cannot be read.
    """
    key = key or device_key(services, device)
    try:
        payload = open_envelope(envelope, {key_id(key): key}, PayloadType.HELLO)
        said = decode(payload, Hello)
        if said.device != device:
            raise TrustError("A hello was refused.", why=f"It speaks of {said.device[:64]!r}.")
    except TrustError as error:
        security.forged(
            services,
            "forged-hello",
            device,
            error,
            envelope=envelope,
            payload=PayloadType.HELLO,
        )
        raise
    except RemoteError as error:
        security.unreadable(services, device, error)
        raise
    return Heard(device, said, recovery.held_state(services, said))


def take(services: Services, told: Sequence[Heard | Seen]) -> list[bytes | None]:
    """Take hellos and presence to heart in one transaction, in their order.

    Presence of a device that is not there is ignored.

    Returns:
        What each is answered: the envelope of its device's desired state, if there is one.

    Raises:
        NoResultFound: a device that said hello is not there; nothing is stored.
    """
    _notice_newer(services, [one for one in told if isinstance(one, Heard)])
    with services.database.write() as session:
        known = _fetch(session, told)
        answers = [_heed(services, session, one, known) for one in told]
    for name in known.counted:
        services.counters.add(name)
    if known.notable:
        services.changes.announce()
    return answers


def current_desired(services: Services, device: str) -> bytes | None:
    """The envelope of a device's desired state."""
    with services.database.write() as session:
        return desired.current(services, session, device)


def all_offline(services: Services) -> None:
    """Forget who was online: the broker that knew is gone."""
    with services.database.write() as session:
        for row in session.scalars(select(tables.Device).where(tables.Device.online)):
            row.online = False


def _notice_newer(services: Services, hellos: Sequence[Heard]) -> None:
    """Have `recovery` look at those that hold what is newer than what the database knows."""
    row = tables.DesiredState
    query = select(row.device, row.epoch, row.counter).where(
        row.device.in_([one.device for one in hellos if one.held])
    )
    with services.database.read() as session:
        known = {device: (epoch, counter) for device, epoch, counter in session.execute(query)}
    for one in hellos:
        if one.held and (one.held.epoch, one.held.counter) > known.get(one.device, (0, 0)):
            recovery.notice_newer(services, one.device, one.held)


def _fetch(session: Session, told: Sequence[Heard | Seen]) -> _Known:
    """Hold the rows of those who speak, in one order, and fetch what `_heed` will ask for."""
    row, model, place = tables.Device, tables.ReportedModel, tables.Assignment
    boot, issued = tables.DeviceBoot, tables.DesiredState
    names = sorted({one.device for one in told})
    # What refers to a device need not wait: its key stays as it is.
    locked = select(row).where(row.id.in_(names)).order_by(row.id).with_for_update(key_share=True)
    rows = {one.id: one for one in session.scalars(locked)}
    hellos = [one for one in told if isinstance(one, Heard)]
    if not hellos:
        return _Known(rows, {}, [])
    names = sorted({one.device for one in hellos})
    models: dict[str, dict[str, tables.ReportedModel]] = {name: {} for name in names}
    for said in session.scalars(select(model).where(model.device.in_(names))):
        models[said.device][said.model] = said
    moved = {
        (state.rollout, one.device) for one in hellos for state in _models(one) if state.rollout
    }
    kept: list[object] = [session.get(tables.Fact, facts.EPOCH)]
    kept += session.scalars(select(boot).where(boot.device.in_(names)))
    kept += session.scalars(select(issued).where(issued.device.in_(names)))
    kept += session.scalars(
        select(place).where(tuple_(place.rollout, place.device).in_(sorted(moved)))
    )
    return _Known(rows, models, kept)


def _models(one: Heard) -> list[ReportedModel]:
    return [bounded(state) for state in one.said.reported.models.values()]


def _heed(services: Services, session: Session, one: Heard | Seen, known: _Known) -> bytes | None:
    if isinstance(one, Seen):
        row = known.rows.get(one.device)
        if row is not None and row.online != one.online:
            row.online = one.online
            row.last_seen = services.now() if one.online else row.last_seen
            known.notable = True
        return None
    row = session.get_one(tables.Device, one.device)
    said, held = one.said, one.held
    known.notable = True
    known.counted.append("hello")
    older = clones.is_of_an_older_boot(services, session, row, said)
    if older or _is_late(row, said):
        known.counted.append("hello.late")
    else:
        _take(services, session, row, said, known.models[row.id])
        configuration_answers.note(session, row.id, said.reported, held, services.now())
    if row.unreconciled:
        recovery.reconcile(services, session, row, held)
    return desired.current(services, session, row.id)


def _is_late(row: tables.Device, said: Hello) -> bool:
    """Whether a hello is older than what is known, or the same again.

    Boots have no order: of another boot than the last one it is taken, and the device's next
    hello puts right what an old one says.
    """
    same = (row.stream, row.boot_id) == (fit(said.stream, 128), fit(said.boot_id, 128))
    return same and 0 < said.counter <= row.hello_counter


def _take(
    services: Services,
    session: Session,
    row: tables.Device,
    said: Hello,
    models: dict[str, tables.ReportedModel],
) -> None:
    now, stream = services.now(), fit(said.stream, 128)
    if row.stream and stream != row.stream:
        _note_stream(services, session, row, stream)
    row.capabilities = msgspec.json.encode(said.capabilities).decode()
    row.hardware_class = fit(said.capabilities.hardware_class, 128)
    row.agent_version = fit(said.agent_version, 128)
    row.boot_id = fit(said.boot_id, 128)
    row.stream = stream
    row.hello_counter = max(0, min(said.counter, _MAX_COUNTER))
    row.reported_epoch = min(said.reported.desired_epoch, _MAX_INT)
    row.reported_counter = min(said.reported.desired_counter, _MAX_INT)
    row.reported_config_version = min(said.reported.config_version, _MAX_INT)
    row.config_error = fit(said.reported.config_error, 2000)
    row.sources = msgspec.json.encode(_sources(said.reported.sources)).decode()
    row.online = said.online
    row.utc_offset_s = _offset(said.utc_offset_s)
    row.features = fit(" ".join(said.features), 2000)
    row.last_seen = now
    named = {fit(model, _MODEL): state for model, state in said.reported.models.items()}
    for model, state in named.items():
        models[model] = apply_model(
            session,
            models.get(model),
            row.id,
            model,
            state,
            stream=row.stream,
            now=now,
            snapshot=True,
        )
    for model in set(models) - set(named):
        session.delete(models.pop(model))


def _note_stream(services: Services, session: Session, row: tables.Device, stream: str) -> None:
    """A new stream is a wiped disk; one that was there before means that two devices live."""
    if session.get(tables.Stream, (row.id, stream)) is None:
        return
    services.counters.add("security.cloned-key")
    session.add(
        tables.SecurityEvent(
            at=services.now(),
            device=row.id,
            kind="cloned-key",
            detail="Two outbox streams alternate: two machines seem to use this device's key.",
        )
    )


def _offset(said: int | None) -> int | None:
    """What a device said of its time zone, if it can be one."""
    return said if said is not None and abs(said) <= _DAY_S else None


def _sources(said: Mapping[str, ReportedSource]) -> dict[str, ReportedSource]:
    """What a device said of its sources, cut to what a configuration may have of them."""
    return {
        fit(name, _MODEL): ReportedSource(
            model=fit(source.model, _MODEL),
            state=fit(source.state, 16),
            reason=fit(source.reason, 500),
            seconds=source.seconds,
        )
        for name, source in list(said.items())[:_MAX_SOURCES]
    }
