"""The packets that a client and this broker exchange, as values; MQTT 5.0 (OASIS), chapter 3."""

import math
from enum import IntEnum
from typing import Final

import msgspec

from cloud_sync.trust.envelope import MAX_ENVELOPE_BYTES

MAX_PACKET: Final = MAX_ENVELOPE_BYTES + (64 << 10)
"""The largest packet that is taken from a client that is let in, in bytes."""
MAX_CONNECT: Final = 16 << 10
"""The largest packet that is taken from one that is not yet."""


class Reason(IntEnum):
    """Reason codes (2.4) that this broker gives."""

    SUCCESS = 0x00
    GRANTED_QOS_1 = 0x01
    NO_SUBSCRIPTION_EXISTED = 0x11
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_INVALID = 0x85
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORIZED = 0x87
    UNAVAILABLE = 0x88
    SERVER_SHUTTING_DOWN = 0x8B
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    FILTER_INVALID = 0x8F
    TOPIC_INVALID = 0x90
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE = 0x98
    QOS_UNSUPPORTED = 0x9B
    IDENTIFIERS_UNSUPPORTED = 0xA1


class PacketError(Exception):
    """A client broke the protocol; `reason` is what it is told."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """An application message; `properties` are those that travel on, encoded.

    `expiry_s` is how long its publisher lets it wait, None for ever; `ends_at` is when that is
    over, by the broker's monotonic clock.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: bytes = b""
    expiry_s: int | None = None
    ends_at: float = math.inf

    @property
    def size(self) -> int:
        """What it takes to keep it, about, in bytes."""
        return len(self.topic) + len(self.payload) + len(self.properties)


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    """CONNECT (3.1)."""

    client_id: str
    username: str
    password: str
    clean_start: bool
    keepalive_s: int
    expiry_s: int
    receive_maximum: int
    maximum_packet: int
    will: Message | None


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """PUBLISH (3.3); `packet_id` 0 means QoS 0."""

    packet_id: int
    message: Message


class Puback(msgspec.Struct, frozen=True):
    """PUBACK (3.4)."""

    packet_id: int


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """One filter of a SUBSCRIBE with its options (3.8.3.1)."""

    topic_filter: str
    qos: int
    no_local: bool
    retain_as_published: bool
    retain_handling: int


class Subscribe(msgspec.Struct, frozen=True):
    """SUBSCRIBE (3.8)."""

    packet_id: int
    subscriptions: tuple[Subscription, ...]


class Unsubscribe(msgspec.Struct, frozen=True):
    """UNSUBSCRIBE (3.10)."""

    packet_id: int
    filters: tuple[str, ...]


class Pingreq(msgspec.Struct, frozen=True):
    """PINGREQ (3.12)."""


class Disconnect(msgspec.Struct, frozen=True):
    """DISCONNECT (3.14); `expiry_s` is None where it leaves the session's as it was."""

    reason: int
    expiry_s: int | None


Packet = Connect | Publish | Puback | Subscribe | Unsubscribe | Pingreq | Disconnect
