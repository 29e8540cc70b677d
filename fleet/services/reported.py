"""What devices say of themselves: hellos, and the states that come with their records."""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_sync.messages import Hello, Phase, ReportedModel, ReportedSource, ReportedState, decode
from cloud_sync.trust import PayloadType, PublicKey, key_id, open_envelope
from cloud_sync.trust.keys import load_public
from edgeml.errors import RemoteError, TrustError
from fleet.db import tables
from fleet.services import clones, configuration_answers, desired, recovery, security
from fleet.services.columns import fit
from fleet.services.context import Services

_DIGEST = 71
_MODEL = 128
_MAX_SOURCES = 64
_MAX_INT = 2**31 - 1
_MAX_COUNTER = 2**62
_DAY_S = 86400
SETTLED = frozenset({Phase.COMMITTED, Phase.REFUSED, Phase.ROLLED_BACK})


def device_key(services: Services, device: str) -> PublicKey:
    """The public key of an enrolled device.

    Raises:
        TrustError: there is no such device, or it was revoked.
    """
    with services.database.read() as session:
        row = session.get(tables.Device, device)
        if row is None or row.revoked_at is not None:
            raise TrustError(
                f"The device {device[:64]!r} is not enrolled here.",
                fix="Enrol it: edgeml fleet enroll, then edgeml agent enroll.",
            )
        return load_public(row.public_key)


def hello(services: Services, device: str, envelope: bytes) -> bytes | None:
    """Take a device's hello; returns its desired state's envelope, if there is one.

    Raises:
        TrustError: the device did not sign it, or it speaks of another.
        RemoteError: it cannot be read.
    """
    key = device_key(services, device)
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
    held = recovery.held_state(services, said)
    recovery.notice_newer(services, device, held)
    with services.database.write() as session:
        row = session.get_one(tables.Device, device, with_for_update=True)
        older = clones.is_of_an_older_boot(services, session, row, said)
        if older or _is_late(row, said):
            services.counters.add("hello.late")
        else:
            _take(services, session, row, said)
            configuration_answers.note(session, device, said.reported, held, services.now())
        if row.unreconciled:
            recovery.reconcile(services, session, row, held)
        answer = desired.current(services, session, device)
    services.counters.add("hello")
    services.changes.announce()
    return answer


def current_desired(services: Services, device: str) -> bytes | None:
    """The envelope of a device's desired state."""
    with services.database.write() as session:
        return desired.current(services, session, device)


def set_presence(services: Services, device: str, *, online: bool) -> None:
    """Note what the broker says of a device: a hint, no proof; unknown devices are ignored."""
    with services.database.write() as session:
        row = session.get(tables.Device, device)
        if row is None or row.online == online:
            return
        row.online = online
        if online:
            row.last_seen = services.now()
    services.changes.announce()


def all_offline(services: Services) -> None:
    """Forget who was online: the broker that knew is gone."""
    with services.database.write() as session:
        for row in session.scalars(select(tables.Device).where(tables.Device.online)):
            row.online = False


def states_of(session: Session, rows: Sequence[tables.Device]) -> dict[str, ReportedState]:
    """What devices last said of themselves; one that never said hello is left out."""
    heard = [row for row in rows if row.last_seen is not None and row.capabilities]
    table = tables.ReportedModel
    query = select(table).where(table.device.in_([row.id for row in heard]))
    models: dict[str, dict[str, ReportedModel]] = {}
    for said in session.scalars(query.order_by(table.device, table.model)):
        models.setdefault(said.device, {})[said.model] = model_of(said)
    return {
        row.id: ReportedState(
            desired_epoch=row.reported_epoch,
            desired_counter=row.reported_counter,
            config_version=row.reported_config_version,
            config_error=row.config_error,
            models=models.get(row.id, {}),
            sources=msgspec.json.decode(row.sources, type=dict[str, ReportedSource]),
        )
        for row in heard
    }


def model_of(row: tables.ReportedModel) -> ReportedModel:
    """A row as the device said it."""
    return ReportedModel(
        phase=Phase(row.phase),
        running_release=row.running_release,
        running_variant=row.running_variant,
        running_version=row.running_version,
        release=row.release,
        variant=row.variant,
        release_version=row.release_version,
        rollout=row.rollout,
        attempt=row.attempt,
        reason=row.reason,
        cause=row.cause,
    )


def apply_model(
    session: Session,
    row: tables.ReportedModel | None,
    device: str,
    model: str,
    said: ReportedModel,
    *,
    stream: str,
    now: float,
    snapshot: bool,
) -> tables.ReportedModel:
    """Keep what a device said of one model; returns the row that has it.

    Args:
        session: a writing one.
        row: what is known of it; None if nothing is.
        device: who said it.
        model: of what.
        said: what it said.
        stream: the outbox stream it came with.
        now: Unix seconds.
        snapshot: whether it is the state of this moment (a hello). A record may be late, and
            then does not undo the end of the same attempt.
    """
    said = _bounded(said)
    attempt = (said.release, said.variant, said.attempt)
    if (
        row is not None
        and not snapshot
        and row.stream == stream
        and (row.release, row.variant, row.attempt) == attempt
        and row.phase in SETTLED
        and said.phase not in SETTLED
    ):
        return row
    fields = msgspec.structs.asdict(said) | {"stream": stream, "at": now}
    if row is None:
        row = tables.ReportedModel(device=device, model=model, **fields)
        session.add(row)
    else:
        for name, value in fields.items():
            setattr(row, name, value)
    place = session.get(tables.Assignment, (said.rollout, device)) if said.rollout else None
    if (
        place is not None
        and place.attempt == said.attempt
        and place.variant == said.variant
        and (place.phase, place.reason) != (said.phase, said.reason)
    ):
        place.phase = said.phase
        place.reason = said.reason
        place.cause = said.cause
        place.phase_at = now
    return row


def _is_late(row: tables.Device, said: Hello) -> bool:
    """Whether a hello is older than what is known, or the same again.

    Boots have no order: of another boot than the last one it is taken, and the device's next
    hello puts right what an old one says.
    """
    same = (row.stream, row.boot_id) == (fit(said.stream, 128), fit(said.boot_id, 128))
    return same and 0 < said.counter <= row.hello_counter


def _take(services: Services, session: Session, row: tables.Device, said: Hello) -> None:
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
        known = session.get(tables.ReportedModel, (row.id, model))
        apply_model(session, known, row.id, model, state, stream=row.stream, now=now, snapshot=True)
    for kept in session.scalars(
        select(tables.ReportedModel).where(tables.ReportedModel.device == row.id)
    ):
        if kept.model not in named:
            session.delete(kept)


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


def _bounded(said: ReportedModel) -> ReportedModel:
    """What a device said, cut to what the columns hold."""
    limits = {"reason": 2000, "cause": 32, "rollout": 64}
    limits |= {"running_version": 128, "release_version": 128}
    texts = {
        name: fit(value, limits.get(name, _DIGEST))
        for name, value in msgspec.structs.asdict(said).items()
        if isinstance(value, str) and name != "phase"
    }
    return msgspec.structs.replace(said, attempt=max(0, min(said.attempt, _MAX_INT)), **texts)
