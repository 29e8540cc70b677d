"""What is sent: CloudEvents 1.0 in their JSON format, signed by the Standard Webhooks scheme.

The signature is HMAC-SHA256 over `id.timestamp.body`, so that a receiver knows who sent an
event, that nobody has changed it, and that it is no old one that is played again. Libraries of
both standards, in many languages, read and verify it.
"""

import base64
import datetime as dt
import hashlib
import hmac
import secrets
import uuid
from typing import Any

import msgspec

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
SCHEDULE_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
_PREFIX = "whsec_"
_SECRET_BYTES = 32


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event; `source` and `id` together are unique, `time` is RFC 3339."""

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str = "application/json"
    data: Any


def new_event(source: str, kind: str, subject: str, data: Any, now: float) -> CloudEvent:
    """An event that happens now, in Unix seconds."""
    time = dt.datetime.fromtimestamp(now, dt.UTC).isoformat().replace("+00:00", "Z")
    return CloudEvent(
        id=f"evt_{uuid.uuid4().hex}",
        source=source,
        type=kind,
        subject=subject,
        time=time,
        data=data,
    )


def new_secret() -> str:
    """A secret, as Standard Webhooks writes it: `whsec_` and base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed_headers(secret: str, event: str, body: bytes, now: float) -> dict[str, str]:
    """The headers that go with a body: its id, the time of this attempt, and the signature."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    content = f"{event}.{int(now)}.".encode() + body
    mac = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {
        "webhook-id": event,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": f"v1,{mac}",
    }


def wants(types: list[str], kind: str) -> bool:
    """Whether a webhook that asks for some types gets an event; `dev.edgeml.alert.*` is a group.

    >>> wants([], "dev.edgeml.alert.firing"), wants(["dev.edgeml.alert.*"], "dev.edgeml.test")
    (True, False)
    """
    return not types or any(
        kind == t or (t.endswith(".*") and kind.startswith(t[:-1])) for t in types
    )


def delay(attempts: int, jitter: float) -> float | None:
    """Seconds until the next attempt, None when it is given up; `jitter` is from 0 to 1.

    >>> delay(1, 0.0), delay(10, 0.0)
    (5.0, None)
    """
    if attempts > len(SCHEDULE_S):
        return None
    return SCHEDULE_S[attempts - 1] * (1.0 + 0.2 * jitter)
