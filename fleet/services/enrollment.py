"""Enrolment: an operator's one-time token becomes a device's certificate and broker account."""

import hmac
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import delete, select

from cloud_sync.messages import Configuration, Enrolled, EnrollRequest, MqttAccess
from cloud_sync.trust import PublicKey, key_id
from cloud_sync.trust.identity import check_device_id, read_request, validity
from edgeml.errors import TrustError, UserError
from fleet.access.scope import require_labels, within
from fleet.broker.credentials import SUPERUSER
from fleet.db import tables
from fleet.identity_ledger import Spent
from fleet.keys import hash_of, new_token
from fleet.problem import Conflict
from fleet.resources import EnrollmentToken
from fleet.rollouts.selector import check_labels
from fleet.services import configuration, identity, revoked, trust
from fleet.services.audit import append, audited, sync_head
from fleet.services.context import Caller, Services

DEFAULT_TTL_S = 3600.0
MAX_TTL_S = 90 * 86400.0
MAX_TOKENS = 10_000
MAX_USES = 100_000


def create_token(
    services: Services,
    caller: Caller,
    device: str,
    labels: Mapping[str, str],
    ttl_s: float = DEFAULT_TTL_S,
    *,
    uses: int = 1,
) -> EnrollmentToken:
    """Make a token for one device, good once; or for `uses` new devices, all named like `cam-*`.

    Raises:
        UserError: the device's id, a label, the lifetime or the uses are not allowed.
    """
    [made] = create_tokens(services, caller, {device: labels}, ttl_s, uses=uses)
    return made


def create_tokens(
    services: Services,
    caller: Caller,
    devices: Mapping[str, Mapping[str, str]],
    ttl_s: float = DEFAULT_TTL_S,
    *,
    uses: int = 1,
) -> list[EnrollmentToken]:
    """Make a token for each of several devices, with their labels; all of them or none.

    Raises:
        UserError: an id, a label, the lifetime or the uses are not allowed.
    """
    checked = {device: check_labels(labels) for device, labels in devices.items()}
    for device in devices:
        _check_name(device, uses)
    _check_scope(services, caller, checked)
    if len(devices) > MAX_TOKENS:
        raise UserError("Too many tokens at once.", why=f"At most {MAX_TOKENS} are made.")
    if not 0 < ttl_s <= MAX_TTL_S:
        raise UserError(
            f"A token cannot live for {ttl_s} seconds.", why=f"At most {MAX_TTL_S:.0f} are allowed."
        )
    now = services.now()
    made = {device: new_token() for device in devices}
    subject = next(iter(devices)) if len(devices) == 1 else f"{len(devices)} devices"
    detail: dict[str, Any] = {"devices": checked}
    if len(devices) == 1:
        detail = {"labels": checked[subject]} | ({"uses": uses} if uses > 1 else {})
    with audited(services, caller, "enrollment.create", subject, **detail) as session:
        session.add_all(
            tables.Enrollment(
                token_hash=hash_of(token),
                device=device,
                labels=json.dumps(checked[device]),
                created_at=now,
                expires_at=now + ttl_s,
                used_at=None,
                uses=uses,
            )
            for device, token in made.items()
        )
    return [
        {"device": d, "token": t, "labels": checked[d], "expires_at": now + ttl_s}
        for d, t in made.items()
    ]


def _check_scope(
    services: Services, caller: Caller, devices: Mapping[str, Mapping[str, str]]
) -> None:
    """Refuse to let in what the caller would not see, or to replace what they do not see."""
    for labels in devices.values():
        require_labels(labels, caller.scope)
    if not caller.scope.requirements:
        return
    table = tables.Device
    others = select(table.id).where(table.id.in_(devices), ~within(table.id, caller.scope))
    with services.database.read() as session:
        taken = session.scalars(others.order_by(table.id)).first()
    if taken is not None:
        raise Conflict(
            f"{taken} is a name that is taken.",
            why="A device outside your scope has it.",
            fix="Take another name.",
        )


def _check_name(device: str, uses: int) -> None:
    """Refuse what is neither a device's id nor, for several, the beginning of one with a `*`."""
    if not 1 <= uses <= MAX_USES:
        raise UserError(f"A token cannot have {uses} uses.", why=f"From 1 to {MAX_USES} it can.")
    several = device.endswith("*")
    if several != (uses > 1):
        raise UserError(
            f"A token for {device[:64]!r} cannot have {uses} uses.",
            why="One device's token is good once; that of several names them like cam-*.",
            fix="Write --uses with a name that ends with *.",
        )
    check_device_id(device.removesuffix("*").rstrip("._-") if several else device)
    if device == SUPERUSER:
        raise UserError(f"{device!r} cannot be a device's id.", why="It is the fleet's own name.")


def enroll(services: Services, request: EnrollRequest) -> Enrolled:
    """Trade a token and a certificate request for an identity.

    A device that is enrolled already gets a new key and keeps its labels, configuration and
    desired state: a replaced device takes its predecessor's place. One that asks again with the
    same key before it has ever spoken, since the answer was lost, is answered again.

    Raises:
        TrustError: the token is unknown, used, expired or for another device, or the request
            is not signed by its key.
    """
    device, key = read_request(request.csr)
    now = services.now()
    password = new_token()
    with services.database.write() as session:
        token = session.get(tables.Enrollment, hash_of(request.token), with_for_update=True)
        row = session.get(tables.Device, device)
        again = row is not None and _is_unanswered(row, key)
        used = _use(token, device, now, enrolled_at=row.enrolled_at if row else None, again=again)
        labels: dict[str, str] = json.loads(used.labels)
        row = row or new_device(device)
        row.enrolled_at = now
        row.revoked_at = None
        row.mqtt_password_hash = hash_of(password)
        superseded = identity.replace(services, session, row, key, now)
        if labels:
            session.execute(delete(tables.DeviceLabel).where(tables.DeviceLabel.device == device))
            session.add_all(
                tables.DeviceLabel(device=device, key=name, value=value)
                for name, value in labels.items()
            )
        configuration.refresh_and_sign(services, session, [device])
        append(services, session, Caller(f"device {device}"), "device.enroll", device)
        certificate = row.certificate
        services.ledger.append(
            Spent(token_hash=used.token_hash, uses=used.uses, at=now, expires_at=used.expires_at)
        )
    services.replaced(device)
    sync_head(services)
    if superseded:
        revoked.write(services)
    services.counters.add("enrolled")
    services.changes.announce()
    return Enrolled(
        device=device,
        certificate=certificate,
        ca=services.keys.authorities,
        director_key=services.keys.director_pem,
        root=trust.current_root(services),
        mqtt=MqttAccess(
            url=services.mqtt_url, username=device, password=password, ca=services.mqtt_ca
        ),
    )


def check_mqtt_password(services: Services, device: str, password: str) -> bool:
    """Whether a device may connect to the broker with this password.

    Not while its certificate has expired: it is renewed over HTTPS.
    """
    with services.database.read() as session:
        row = session.get(tables.Device, device)
        if row is None or row.revoked_at is not None:
            return False
        if services.now() > validity(row.certificate)[1]:
            return False
        return hmac.compare_digest(row.mqtt_password_hash, hash_of(password))


def _is_unanswered(row: tables.Device, key: PublicKey) -> bool:
    """Whether a device was given a certificate for this key and has said nothing since."""
    silent = row.last_seen is None or row.last_seen < row.enrolled_at
    return silent and row.revoked_at is None and row.key_id == key_id(key)


def _use(
    token: tables.Enrollment | None,
    device: str,
    now: float,
    *,
    enrolled_at: float | None,
    again: bool,
) -> tables.Enrollment:
    """Use a token for a device, enrolled when, if it is; one that asks `again` has used it."""
    if token is None:
        raise _refused("The fleet does not know it.")
    if token.used_at is not None and not again:
        raise _refused("It was used before.")
    if now > token.expires_at:
        raise _refused(f"It expired {now - token.expires_at:.0f} seconds ago.")
    several = token.device.endswith("*")
    if device == SUPERUSER or not (
        device.startswith(token.device[:-1]) if several else device == token.device
    ):
        raise _refused(f"It is for {token.device}, not for {device}.")
    if again:
        return token
    if several and enrolled_at is not None:
        # Whoever has a disk image shall not take the place of a device that is there.
        raise _refused(f"It lets in new devices only, and there is a {device} already.")
    if enrolled_at is not None and token.created_at < enrolled_at:
        # Made when the name was free, perhaps by somebody who does not even see the device.
        raise _refused(f"It is older than the enrolment of {device}.")
    token.uses -= 1
    if token.uses == 0:
        token.used_at = now
    return token


def _refused(why: str) -> TrustError:
    return TrustError(
        "The enrolment token was refused.", why=why, fix="Make a new one: edgeml fleet enroll"
    )


def new_device(device: str) -> tables.Device:
    """The row of a device that has said nothing yet."""
    return tables.Device(
        id=device,
        enrolled_at=0.0,
        revoked_at=None,
        certificate="",
        public_key="",
        key_id="",
        mqtt_password_hash="",
        configuration=msgspec.json.encode(Configuration()).decode(),
        config_version=0,
        capabilities="",
        hardware_class="",
        agent_version="",
        boot_id="",
        stream="",
        hello_counter=0,
        reported_epoch=0,
        reported_counter=0,
        reported_config_version=0,
        config_error="",
        sources="{}",
        online=False,
        last_seen=None,
        unreconciled=False,
    )
