"""The device's certificate, renewed long before it expires, or after: with a new key.

The new key is kept before it is asked for, so that an answer which is lost, or a crash at any
step, ends with one of the two keys in force: the fleet knows the old one until it has issued for
the new one, and is then asked again with that.
"""

import hashlib
from typing import TYPE_CHECKING

from cloud_sync.release import write_atomically
from cloud_sync.trust import key_id
from cloud_sync.trust.identity import (
    certified_key,
    is_issued_by,
    make_request,
    validity,
    verify_issued,
)
from cloud_sync.trust.keys import split_pems
from edge_agent.trust.identity import Identity, read_identity, save_broker
from edgeml.errors import TrustError

if TYPE_CHECKING:
    from cloud_sync.device_api import DeviceClient
    from cloud_sync.messages import Enrolled

RENEW_AT = 2 / 3  # of its life; the last part of that is spread over the devices
_SPREAD = 0.1


def is_due(identity: Identity, now: float) -> bool:
    """Whether a device's certificate should be renewed: it grew old, or the CA was rotated."""
    begin, end = validity(identity.certificate)
    early = int(hashlib.sha256(identity.config.device.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
    newest = split_pems(identity.authorities)[-1:]
    rotated = bool(newest) and not is_issued_by(identity.certificate, newest[0])
    return rotated or now >= begin + (end - begin) * (RENEW_AT - _SPREAD * early)


def renew(identity: Identity, client: "DeviceClient") -> Identity:
    """Ask for a certificate for the next key, and put both in force.

    Raises:
        TrustError: the fleet renews no more, or what it answered does not fit.
        RemoteError: the fleet cannot be reached.
        OSError: the disk cannot be used.
    """
    store, device = identity.store, identity.config.device
    following = store.next()
    answer = _ask(identity, client, make_request(device, following))
    if key_id(certified_key(answer.certificate)) != key_id(following.public_key()):
        raise TrustError("The fleet's answer does not fit.", why="It certifies another key.")
    if verify_issued(answer.certificate, answer.ca) != device:
        raise TrustError("The fleet's answer does not fit.", why="It names another device.")
    save_broker(identity, answer.mqtt)
    write_atomically(identity.folder / "device.pem", answer.certificate.encode(), 0o600)
    store.promote()
    renewed = read_identity(identity.config)
    client.rekey(renewed.key)
    return renewed


def _ask(identity: Identity, client: "DeviceClient", csr: str) -> "Enrolled":
    client.rekey(identity.key)
    try:
        return client.renew(csr)
    except TrustError:
        # The fleet may have issued before, and its answer was lost: it knows the next key then.
        client.rekey(identity.store.next())
        try:
            return client.renew(csr)
        except BaseException:
            client.rekey(identity.key)
            raise
