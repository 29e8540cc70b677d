"""Who a device is, from its enrolment on: its certificate renewed, revoked, told to brokers."""

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_sync.messages import Enrolled, MqttAccess, decode, encode
from cloud_sync.trust import PayloadType, PublicKey, key_id, open_envelope, sign
from cloud_sync.trust.identity import is_issued_by, issue, read_request, validity
from cloud_sync.trust.keys import load_public, public_pem
from cloud_sync.trust.messages import RenewRequest, SignedTime, TimeRequest
from edgeml.errors import TrustError
from fleet.db import tables
from fleet.identity_ledger import Admitted, Revoked
from fleet.keys import REVOKED
from fleet.problem import NotFound
from fleet.services import facts, revoked, security, trust
from fleet.services.audit import append, audited, sync_head
from fleet.services.context import Caller, Services

TIME_RESET = "time.reset"
_DAY_S = 86400.0


@dataclass(frozen=True)
class Known:
    """A device that is let in, and until when its certificate is good, in Unix seconds."""

    key: PublicKey
    expires_at: float


def known(services: Services, device: str) -> Known:
    """An enrolled device that is not revoked.

    Raises:
        TrustError: there is no such device, or it was revoked.
    """
    of = tables.Device
    query = select(of.public_key, of.certificate, of.revoked_at).where(of.id == device)
    with services.database.read() as session:
        row = session.execute(query).one_or_none()
    if row is None or row.revoked_at is not None:
        raise TrustError(
            f"The device {device[:64]!r} is not enrolled here.",
            why="It was revoked." if row else "",
            fix="Enrol it: edgeml fleet enroll, then edgeml agent enroll.",
        )
    return Known(load_public(row.public_key), validity(row.certificate)[1])


def tell_time(services: Services, device: str, request: bytes) -> bytes:
    """The time, signed by the director with the device's nonce.

    Raises:
        RemoteError: the question cannot be read.
        TrustError: it is another device's.
    """
    asked = decode(request, TimeRequest)
    if asked.device != device:
        raise TrustError("A question for the time was refused.", why="It is another device's.")
    with services.database.read() as session:
        reset = facts.get(session, TIME_RESET)
    told = SignedTime(device=device, nonce=asked.nonce, at=services.now(), reset=reset)
    return sign(encode(told), PayloadType.TIME, services.keys.director)


def reset_time(services: Services, caller: Caller) -> str:
    """Have every device take the fleet's time as it is, also where it held a later one for proven.

    Returns:
        The reset's name.
    """
    name = f"{services.now():.6f}"
    with audited(services, caller, "fleet.reset-time", "devices", reset=name) as session:
        facts.put(session, TIME_RESET, name)
    return name


def renew(services: Services, device: str, envelope: bytes) -> Enrolled:
    """Give a device a new certificate for the key of its request, which its present key signs.

    A device that asks again for the key it has, since the answer was lost, is given the same one.

    Raises:
        TrustError: its present key did not sign, it is revoked, or expired for too long.
        RemoteError: the request cannot be read.
    """
    now = services.now()
    present = known(services, device).key
    key = _requested(services, device, present, envelope)
    with services.database.write() as session:
        row = session.get_one(tables.Device, device, with_for_update=True)
        if row.revoked_at is not None or row.key_id != key_id(present):
            raise TrustError(f"The certificate of {device[:64]!r} was not renewed: it is another.")
        issued_at, expires_at = validity(row.certificate)
        if now > expires_at + services.grace_s:
            raise TrustError(
                f"The certificate of {device} is not renewed.",
                why=f"It expired {(now - expires_at) / 86400:.0f} days ago.",
                fix="Enrol the device again: edgeml fleet enroll",
            )
        again = key_id(key) == row.key_id and now - issued_at < _DAY_S
        if not (again and is_issued_by(row.certificate, services.keys.ca)):
            replace(services, session, row, key, now)
            caller = Caller(f"device {device}")
            append(services, session, caller, "device.renew", device, key=row.key_id)
    sync_head(services)
    revoked.write(services)
    services.counters.add("renewed")
    return Enrolled(
        device=device,
        certificate=row.certificate,
        ca=services.keys.authorities,
        director_key=services.keys.director_pem,
        root=trust.current_root(services),
        mqtt=MqttAccess(url=services.mqtt_url, username=device, ca=services.mqtt_ca),
    )


def replace(
    services: Services, session: Session, row: tables.Device, key: PublicKey, now: float
) -> bool:
    """Issue a device's certificate; returns whether there was one before, good no more now.

    Raises:
        TrustError: the key is another device's.
    """
    owner = session.get(tables.DeviceKey, key_id(key))
    if owner is not None and owner.device != row.id:
        raise TrustError(
            "The certificate request was refused.",
            why=f"Its key is that of {owner.device} already.",
        )
    superseded = _supersede(session, row, now)
    keys, at = services.keys, dt.datetime.fromtimestamp(now, dt.UTC)
    row.certificate = issue(row.id, key, keys.ca, keys.ca_key, at)
    row.public_key = public_pem(key)
    row.key_id = key_id(key)
    services.ledger.append(
        Admitted(
            device=row.id,
            certificate=row.certificate,
            password_hash=row.mqtt_password_hash,
            at=now,
        )
    )
    session.add(row)
    session.flush()
    session.merge(
        tables.DeviceKey(key_id=row.key_id, device=row.id, public_key=row.public_key, since=now)
    )
    return superseded


def revoke(services: Services, caller: Caller, device: str) -> bool:
    """Let a device in no more: neither the API nor the broker; returns whether that is new.

    What it had sent stays. It may be enrolled again, with a new key.

    Raises:
        NotFound: there is no such device.
    """
    now = services.now()
    with services.database.read() as session:
        row = session.get(tables.Device, device)
    if row is None:
        raise NotFound(f"There is no device {device[:64]!r}.", fix="See: edgeml devices list")
    if row.revoked_at is not None:
        revoked.write(services)  # where that failed before
        return False
    with audited(services, caller, "device.revoke", device) as session:
        row = session.get_one(tables.Device, device, with_for_update=True)
        services.ledger.append(Revoked(device=device, at=now))
        row.revoked_at = now
        row.online = False
        _supersede(session, row, now)
    services.replaced(device)
    revoked.write(services)
    services.counters.add("revoked")
    return True


def keep_revoked_fresh(services: Services) -> None:
    """Write the list of revoked certificates anew each day: brokers refuse one that is too old."""
    path = services.keys.folder / REVOKED
    if not path.exists() or services.now() - path.stat().st_mtime > _DAY_S:
        revoked.write(services)


def _supersede(session: Session, row: tables.Device, now: float) -> bool:
    if not row.certificate:
        return False
    found = x509.load_pem_x509_certificate(row.certificate.encode())
    session.merge(
        tables.RevokedCertificate(
            serial=f"{found.serial_number:x}",
            device=row.id,
            issuer=found.issuer.rfc4514_string(),
            revoked_at=now,
            expires_at=found.not_valid_after_utc.timestamp(),
        )
    )
    return True


def _requested(services: Services, device: str, present: PublicKey, envelope: bytes) -> PublicKey:
    """The key that a device asks a certificate for, and holds."""
    try:
        payload = open_envelope(envelope, {key_id(present): present}, PayloadType.RENEWAL)
    except TrustError as error:
        security.record(services, "forged-renewal", device, str(error))
        raise
    asked = decode(payload, RenewRequest)
    named, key = read_request(asked.csr)
    if {named, asked.device} != {device}:
        raise TrustError("A renewal was refused.", why=f"It is for {named[:64]!r}.")
    return key
