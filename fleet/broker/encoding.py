"""From the broker's answers and messages to bytes."""

import math
import struct
from collections.abc import Sequence
from typing import Final

from fleet.broker.packets import MAX_PACKET, Message, Reason

PINGRESP: Final = b"\xd0\x00"
RECEIVE_MAXIMUM: Final = 100
"""How many unacknowledged QoS 1 messages a client may send at once."""


def connack(
    reason: Reason,
    *,
    session_present: bool = False,
    expiry_s: int = 0,
    keepalive_s: int | None = None,
    assigned: str = "",
) -> bytes:
    """Return CONNACK (3.2), which also says what this broker does not offer."""
    properties = b""
    if reason is Reason.SUCCESS:
        properties = struct.pack(
            ">BIBHBBBIBB",
            *(0x11, expiry_s),
            *(0x21, RECEIVE_MAXIMUM),
            *(0x24, 1),
            *(0x27, MAX_PACKET),
            *(0x29, 0),
        )
        if keepalive_s is not None:
            properties += struct.pack(">BH", 0x13, keepalive_s)
        if assigned:
            properties += b"\x12" + _text(assigned)
    return _packet(0x20, bytes((session_present, reason)) + length(len(properties)) + properties)


def publish(
    message: Message, *, packet_id: int, dup: bool, retain: bool, left_s: float = math.inf
) -> bytes:
    """Return PUBLISH (3.3); `packet_id` 0 means QoS 0, `left_s` is how long it may wait yet."""
    first = 0x30 | dup << 3 | (0x02 if packet_id else 0) | retain
    identifier = struct.pack(">H", packet_id) if packet_id else b""
    expiry = b"" if math.isinf(left_s) else struct.pack(">BI", 0x02, math.ceil(left_s))
    properties = length(len(expiry) + len(message.properties)) + expiry + message.properties
    return _packet(first, _text(message.topic) + identifier + properties + message.payload)


def puback(packet_id: int, reason: Reason) -> bytes:
    """Return PUBACK (3.4)."""
    if reason is Reason.SUCCESS:
        return struct.pack(">BBH", 0x40, 2, packet_id)
    return struct.pack(">BBHBB", 0x40, 4, packet_id, reason, 0)


def suback(packet_id: int, reasons: Sequence[Reason]) -> bytes:
    """Return SUBACK (3.9)."""
    return _packet(0x90, struct.pack(">HB", packet_id, 0) + bytes(reasons))


def unsuback(packet_id: int, reasons: Sequence[Reason]) -> bytes:
    """Return UNSUBACK (3.11)."""
    return _packet(0xB0, struct.pack(">HB", packet_id, 0) + bytes(reasons))


def disconnect(reason: Reason) -> bytes:
    """Return DISCONNECT (3.14)."""
    return bytes((0xE0, 2, reason, 0))


def length(value: int) -> bytes:
    """Return a variable byte integer (1.5.5)."""
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 -- seven bits to a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + length(len(body)) + body
