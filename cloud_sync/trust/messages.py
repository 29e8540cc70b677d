"""What fleet and device say to each other about time, identity and trust; over HTTPS only.

| route | signed by | payload |
|---|---|---|
| `POST /device/v1/time` | | `TimeRequest`, answered with `SignedTime`, signed by the director |
| `POST /device/v1/renew` | the device's present key | `RenewRequest`, answered with `Enrolled` |
| `GET /device/v1/root/KEY` | that director's key | `RootStatement` |
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from cloud_sync.messages import MESSAGE_VERSION

MIN_NONCE = 16

Nonce = Annotated[str, Meta(min_length=MIN_NONCE, max_length=128)]


class TimeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A device that knows no time asks for it; the nonce makes the answer one to this question."""

    version: int = MESSAGE_VERSION
    device: Annotated[str, Meta(max_length=64)]
    nonce: Nonce


class SignedTime(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet's time in Unix seconds, when it answered.

    `reset` names the last reset that an operator ordered, empty where there was none: a device
    that has not followed it yet takes the time as it is, also where that is earlier than what it
    held for proven.
    """

    version: int = MESSAGE_VERSION
    device: Annotated[str, Meta(max_length=64)]
    nonce: Nonce
    at: float
    reset: Annotated[str, Meta(max_length=64)] = ""


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate signing request (PEM), in an envelope that the device's present key signs."""

    version: int = MESSAGE_VERSION
    device: Annotated[str, Meta(max_length=64)]
    csr: Annotated[str, Meta(max_length=1 << 16)]


class RootStatement(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet's TUF root (JSON), for devices that were enrolled before there was one."""

    version: int = MESSAGE_VERSION
    root: Annotated[str, Meta(max_length=512 << 10)]
