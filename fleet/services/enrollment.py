"""Enrolment: an operator's one-time token becomes a device's certificate and broker account."""

import datetime as dt
import hmac
import json
from collections.abc import Mapping

import msgspec
from sqlalchemy import delete

from cloud_sync.messages import Configuration, Enrolled, EnrollRequest, MqttAccess
from cloud_sync.trust import key_id
from cloud_sync.trust.identity import check_device_id, issue, read_request
from cloud_sync.trust.keys import public_pem
from edgeml.errors import TrustError, UserError
from fleet.broker.credentials import SUPERUSER
from fleet.db import tables
from fleet.keys import hash_of, new_token
from fleet.resources import EnrollmentToken
from fleet.rollouts.selector import check_labels
from fleet.services import trust
from fleet.services.audit import append, audited, sync_head
from fleet.services.context import Caller, Services

DEFAULT_TTL_S = 3600.0
MAX_TTL_S = 90 * 86400.0


def create_token(
    services: Services,
    caller: Caller,
    device: str,
    labels: Mapping[str, str],
    ttl_s: float = DEFAULT_TTL_S,
) -> EnrollmentToken:
    """Make a one-time token for one device.

    Raises:
        UserError: the device's id, a label or the lifetime is not allowed.
    """
    check_device_id(device)
    if device == SUPERUSER:
        raise UserError(f"{device!r} cannot be a device's id.", why="It is the fleet's own name.")
    checked = check_labels(labels)
    if not 0 < ttl_s <= MAX_TTL_S:
        raise UserError(
            f"A token cannot live for {ttl_s} seconds.", why=f"At most {MAX_TTL_S:.0f} are allowed."
        )
    token = new_token()
    expires_at = services.now() + ttl_s
    with audited(services, caller, "enrollment.create", device, labels=checked) as session:
        session.add(
            tables.Enrollment(
                token_hash=hash_of(token),
                device=device,
                labels=json.dumps(checked),
                created_at=services.now(),
                expires_at=expires_at,
                used_at=None,
            )
        )
    return {"device": device, "token": token, "labels": checked, "expires_at": expires_at}


def enroll(services: Services, request: EnrollRequest) -> Enrolled:
    """Trade a token and a certificate request for an identity.

    A device that is enrolled already gets a new key and keeps its labels, configuration and
    desired state: a replaced device takes its predecessor's place.

    Raises:
        TrustError: the token is unknown, used, expired or for another device, or the request
            is not signed by its key.
    """
    device, key = read_request(request.csr)
    now = services.now()
    password = new_token()
    with services.database.write() as session:
        token = session.get(tables.Enrollment, hash_of(request.token), with_for_update=True)
        labels = _use(token, device, now)
        row = session.get(tables.Device, device) or _new_device(device)
        row.enrolled_at = now
        row.revoked_at = None
        row.certificate = issue(
            device,
            key,
            services.keys.ca,
            services.keys.ca_key,
            dt.datetime.fromtimestamp(now, dt.UTC),
        )
        row.public_key = public_pem(key)
        row.key_id = key_id(key)
        row.mqtt_password_hash = hash_of(password)
        session.add(row)
        session.flush()
        owner = session.get(tables.DeviceKey, row.key_id)
        if owner is not None and owner.device != device:
            raise TrustError(
                "The enrolment was refused.", why=f"Its key is that of {owner.device} already."
            )
        session.merge(
            tables.DeviceKey(key_id=row.key_id, device=device, public_key=row.public_key, since=now)
        )
        if labels:
            session.execute(delete(tables.DeviceLabel).where(tables.DeviceLabel.device == device))
            session.add_all(
                tables.DeviceLabel(device=device, key=name, value=value)
                for name, value in labels.items()
            )
        append(services, session, Caller(f"device {device}"), "device.enroll", device)
        certificate = row.certificate
    services.replaced(device)
    sync_head(services)
    services.counters.add("enrolled")
    services.changes.announce()
    return Enrolled(
        device=device,
        certificate=certificate,
        ca=services.keys.ca,
        director_key=services.keys.director_pem,
        root=trust.current_root(services),
        mqtt=MqttAccess(
            url=services.mqtt_url, username=device, password=password, ca=services.mqtt_ca
        ),
    )


def check_mqtt_password(services: Services, device: str, password: str) -> bool:
    """Whether a device may connect to the broker with this password."""
    with services.database.read() as session:
        row = session.get(tables.Device, device)
        if row is None or row.revoked_at is not None:
            return False
        return hmac.compare_digest(row.mqtt_password_hash, hash_of(password))


def _use(token: tables.Enrollment | None, device: str, now: float) -> dict[str, str]:
    """Use a token up for a device; returns the labels that it gives."""
    if token is None:
        raise _refused("The fleet does not know it.")
    if token.used_at is not None:
        raise _refused("It was used before.")
    if now > token.expires_at:
        raise _refused(f"It expired {now - token.expires_at:.0f} seconds ago.")
    if token.device != device:
        raise _refused(f"It is for {token.device}, not for {device}.")
    token.used_at = now
    labels: dict[str, str] = json.loads(token.labels)
    return labels


def _refused(why: str) -> TrustError:
    return TrustError(
        "The enrolment token was refused.", why=why, fix="Make a new one: edgeml fleet enroll"
    )


def _new_device(device: str) -> tables.Device:
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
