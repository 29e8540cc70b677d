"""How a device proves itself over HTTPS without a clock of its own.

The server hands out a challenge: the time at the server, a random number, and an HMAC over
both, so that it needs no memory of it. The device signs {device, challenge, audience} and
sends the envelope with each request, until the challenge is too old for the server.
"""

import base64
import hashlib
import hmac
import secrets

import msgspec

from cloud_sync.trust.envelope import Envelope, PayloadType, open_envelope, sign
from cloud_sync.trust.keys import PrivateKey, PublicKey, key_id
from edgeml.errors import TrustError

SCHEME = "Edgeml-Device"
AUDIENCE = "edgeml-fleet"
CHALLENGE_SECONDS = 900.0
_MAX_TOKEN = 8192


class DeviceToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a device signs."""

    device: str
    challenge: str
    audience: str = AUDIENCE


def make_challenge(secret: bytes, now: float) -> str:
    """A new challenge, good for `CHALLENGE_SECONDS`."""
    body = f"{int(now)}.{secrets.token_urlsafe(12)}"
    return f"{body}.{_mac(secret, body)}"


def check_challenge(challenge: str, secret: bytes, now: float) -> None:
    """Check that a challenge is ours and not too old.

    Raises:
        TrustError: it is not.
    """
    body, _, mac = challenge.rpartition(".")
    issued = body.partition(".")[0]
    if not hmac.compare_digest(mac.encode(), _mac(secret, body).encode()) or not issued.isdigit():
        raise TrustError("A device's token was refused.", why="Its challenge is not ours.")
    if not 0 <= now - int(issued) <= CHALLENGE_SECONDS:
        raise TrustError("A device's token was refused.", why="Its challenge is too old.")


def make_token(device: str, challenge: str, key: PrivateKey) -> str:
    """The value of the header `Authorization`."""
    payload = msgspec.json.encode(DeviceToken(device=device, challenge=challenge))
    envelope = sign(payload, PayloadType.TOKEN, key)
    return f"{SCHEME} {base64.urlsafe_b64encode(envelope).decode()}"


def claimed_device(authorization: str) -> str:
    """Which device a token says it is from, before its signature is checked.

    Raises:
        TrustError: the header is none of ours.
    """
    _, payload = _read(authorization)
    return payload.device


def check_token(authorization: str, key: PublicKey, secret: bytes, now: float) -> str:
    """Verify a token and return the device's id.

    Raises:
        TrustError: it is not signed by `key`, or its challenge is not ours or too old.
    """
    envelope, _ = _read(authorization)
    opened = open_envelope(envelope, {key_id(key): key}, PayloadType.TOKEN)
    token = msgspec.json.decode(opened, type=DeviceToken)
    if token.audience != AUDIENCE:
        raise TrustError("A device's token was refused.", why="It is for another audience.")
    check_challenge(token.challenge, secret, now)
    return token.device


def _read(authorization: str) -> tuple[bytes, DeviceToken]:
    scheme, _, encoded = authorization.partition(" ")
    if scheme != SCHEME or len(encoded) > _MAX_TOKEN:
        raise TrustError("A device's token is needed.", why=f"The scheme is {SCHEME}.")
    try:
        data = base64.urlsafe_b64decode(encoded.encode())
        envelope = msgspec.json.decode(data, type=Envelope)
        payload = base64.b64decode(envelope.payload, validate=True)
        return data, msgspec.json.decode(payload, type=DeviceToken)
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise TrustError("A device's token cannot be read.", why=f"{error}.") from None


def _mac(secret: bytes, body: str) -> str:
    digest = hmac.new(secret, body.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
