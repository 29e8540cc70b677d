"""From bytes of a client to packets: the part of the broker that reads what others send.

`Frames` cuts a stream into whole packets and never holds more than one that is too large;
`decode` reads one packet strictly. Both raise `PacketError` and nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from fleet.broker.packets import (
    Connect,
    Disconnect,
    Message,
    Packet,
    PacketError,
    Pingreq,
    Puback,
    Publish,
    Reason,
    Subscribe,
    Subscription,
    Unsubscribe,
)

_PROTOCOL_5: Final = 5
_FOREVER: Final = 0xFFFFFFFF
_MAX_LENGTH_BYTES: Final = 4
_MAX_QOS: Final = 1

# Property identifiers (2.2.2.2) by the type of their value.
_TYPES: Final[Mapping[int, str]] = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), "byte"),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), "int16"),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), "int32"),
    0x0B: "varint",
    **dict.fromkeys((0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F), "text"),
    **dict.fromkeys((0x09, 0x16), "binary"),
    0x26: "pair",
}
_MESSAGE_EXPIRY: Final = 0x02
_SESSION_EXPIRY: Final = 0x11
_RECEIVE_MAXIMUM: Final = 0x21
_MAXIMUM_PACKET: Final = 0x27
_TOPIC_ALIAS: Final = 0x23
_SUBSCRIPTION_ID: Final = 0x0B
_AUTHENTICATION_METHOD: Final = 0x15
_USER_PROPERTY: Final = 0x26
_OF_CONNECT: Final = frozenset((0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27))
_OF_WILL: Final = frozenset((0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26))
_OF_PUBLISH: Final = frozenset((0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26))
_OF_ACK: Final = frozenset((0x1F, 0x26))
_OF_SUBSCRIBE: Final = frozenset((0x0B, 0x26))
_OF_UNSUBSCRIBE: Final = frozenset((0x26,))
_OF_DISCONNECT: Final = frozenset((0x11, 0x1F, 0x26))
_TRAVELS_ON: Final = frozenset((0x01, 0x03, 0x08, 0x09, 0x26))


class Frames:
    """Cuts a byte stream into packets; `limit` is the largest that is taken, in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Append what came from the socket."""
        self._buffer += data

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yield (first byte, body) of each packet that is complete.

        Raises:
            PacketError: a length is malformed or above the limit.
        """
        while len(self._buffer) > 1:
            length, start = self._length()
            if start == 0:
                return
            if start + length > self.limit:
                raise PacketError(
                    Reason.PACKET_TOO_LARGE, f"a packet of {length} bytes; {self.limit} are taken"
                )
            if len(self._buffer) < start + length:
                return
            first, body = self._buffer[0], bytes(self._buffer[start : start + length])
            del self._buffer[: start + length]
            yield first, body

    def _length(self) -> tuple[int, int]:
        """Return the remaining length and where it ends; (0, 0) when it is not all there."""
        length = 0
        for index, byte in enumerate(self._buffer[1 : 1 + _MAX_LENGTH_BYTES]):
            length |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:  # noqa: PLR2004 -- the bit that says "more follows"
                return length, index + 2
        if len(self._buffer) > _MAX_LENGTH_BYTES:
            raise PacketError(Reason.MALFORMED, "the packet's length has more than four bytes")
        return 0, 0


def decode(first: int, body: bytes) -> Packet:
    """Return the packet with this first byte and body.

    Raises:
        PacketError: it is malformed, or of a kind that a client does not send here.
    """
    reader = _Reader(body)
    kind, flags = first >> 4, first & 0x0F
    if kind == _PUBLISH:
        return _publish(flags, reader)
    read, wanted = _KINDS.get(kind, (None, 0))
    if read is None:
        raise PacketError(Reason.PROTOCOL_ERROR, f"a packet of kind {kind} is not taken")
    if flags != wanted:
        raise PacketError(Reason.MALFORMED, f"the reserved flags of a packet are {flags}")
    packet = read(reader)
    reader.end()
    return packet


class _Reader:
    """Reads the fields of one packet body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise PacketError(Reason.MALFORMED, "a packet ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def varint(self) -> int:
        value = 0
        for index in range(_MAX_LENGTH_BYTES):
            byte = self.number(1)
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:  # noqa: PLR2004 -- the bit that says "more follows"
                return value
        raise PacketError(Reason.MALFORMED, "a length has more than four bytes")

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        try:
            value = self.binary().decode("utf-8")
        except UnicodeDecodeError:
            raise PacketError(Reason.MALFORMED, "a text is not UTF-8") from None
        if "\0" in value:
            raise PacketError(Reason.MALFORMED, "a text holds U+0000")
        return value

    def packet_id(self) -> int:
        value = self.number(2)
        if value == 0:
            raise PacketError(Reason.PROTOCOL_ERROR, "a packet identifier is 0")
        return value

    def properties(self, allowed: frozenset[int]) -> tuple[dict[int, int], bytes]:
        """Return the numbers among the properties and, encoded, those that travel on."""
        size = self.varint()
        if size > self.left:
            raise PacketError(Reason.MALFORMED, "properties are longer than their packet")
        end = self._at + size
        numbers: dict[int, int] = {}
        seen: set[int] = set()
        onward = b""
        while self._at < end:
            start = self._at
            name = self.varint()
            if name not in allowed or (name in seen and name != _USER_PROPERTY):
                raise PacketError(Reason.PROTOCOL_ERROR, f"property {name} does not belong here")
            seen.add(name)
            value = self._property(_TYPES[name])
            if value is not None:
                numbers[name] = value
            elif name == _AUTHENTICATION_METHOD:
                numbers[name] = 1
            if name in _TRAVELS_ON:
                onward += self._data[start : self._at]
        if self._at != end:
            raise PacketError(Reason.MALFORMED, "a property is longer than the properties")
        return numbers, onward

    def _property(self, kind: str) -> int | None:
        match kind:
            case "byte":
                return self.number(1)
            case "int16":
                return self.number(2)
            case "int32":
                return self.number(4)
            case "varint":
                return self.varint()
            case "binary":
                self.binary()
            case "pair":
                self.text()
                self.text()
            case _:
                self.text()
        return None

    def rest(self) -> bytes:
        return self.take(self.left)

    def end(self) -> None:
        if self.left:
            raise PacketError(Reason.MALFORMED, f"a packet has {self.left} bytes too many")


def _connect(reader: _Reader) -> Connect:
    if reader.text() != "MQTT" or reader.number(1) != _PROTOCOL_5:
        raise PacketError(Reason.UNSUPPORTED_VERSION, "only MQTT 5 is spoken here")
    flags = reader.number(1)
    if flags & 0x01:
        raise PacketError(Reason.MALFORMED, "the reserved flag of CONNECT is set")
    keepalive = reader.number(2)
    numbers, _ = reader.properties(_OF_CONNECT)
    if _AUTHENTICATION_METHOD in numbers:
        raise PacketError(Reason.BAD_CREDENTIALS, "enhanced authentication is not offered")
    if numbers.get(_RECEIVE_MAXIMUM) == 0 or numbers.get(_MAXIMUM_PACKET) == 0:
        raise PacketError(Reason.PROTOCOL_ERROR, "a maximum of 0 in CONNECT")
    client_id = reader.text()
    will = _will(flags, reader)
    username = reader.text() if flags & 0x80 else ""
    try:
        password = reader.binary().decode() if flags & 0x40 else ""
    except UnicodeDecodeError:
        raise PacketError(Reason.BAD_CREDENTIALS, "the password is not UTF-8") from None
    return Connect(
        client_id=client_id,
        username=username,
        password=password,
        clean_start=bool(flags & 0x02),
        keepalive_s=keepalive,
        expiry_s=numbers.get(_SESSION_EXPIRY, 0),
        receive_maximum=numbers.get(_RECEIVE_MAXIMUM, 0xFFFF),
        maximum_packet=numbers.get(_MAXIMUM_PACKET, _FOREVER),
        will=will,
    )


def _will(flags: int, reader: _Reader) -> Message | None:
    qos, retain = flags >> 3 & 3, bool(flags & 0x20)
    if not flags & 0x04:
        if qos or retain:
            raise PacketError(Reason.MALFORMED, "flags of a will without a will")
        return None
    if qos > _MAX_QOS:
        raise PacketError(Reason.QOS_UNSUPPORTED, f"a will with QoS {qos}")
    numbers, onward = reader.properties(_OF_WILL)
    return Message(
        topic=reader.text(),
        payload=reader.binary(),
        qos=qos,
        retain=retain,
        properties=onward,
        expiry_s=numbers.get(_MESSAGE_EXPIRY),
    )


def _publish(flags: int, reader: _Reader) -> Publish:
    qos = flags >> 1 & 3
    if qos > _MAX_QOS:
        raise PacketError(Reason.QOS_UNSUPPORTED, f"a message with QoS {qos}")
    topic = reader.text()
    packet_id = reader.packet_id() if qos else 0
    numbers, onward = reader.properties(_OF_PUBLISH)
    if _TOPIC_ALIAS in numbers:
        raise PacketError(Reason.TOPIC_ALIAS_INVALID, "topic aliases are not offered")
    message = Message(
        topic=topic,
        payload=reader.rest(),
        qos=qos,
        retain=bool(flags & 1),
        properties=onward,
        expiry_s=numbers.get(_MESSAGE_EXPIRY),
    )
    return Publish(packet_id=packet_id, message=message)


def _puback(reader: _Reader) -> Puback:
    packet_id = reader.packet_id()
    if reader.left:
        reader.number(1)
    if reader.left:
        reader.properties(_OF_ACK)
    return Puback(packet_id)


def _subscribe(reader: _Reader) -> Subscribe:
    packet_id = reader.packet_id()
    numbers, _ = reader.properties(_OF_SUBSCRIBE)
    if _SUBSCRIPTION_ID in numbers:
        raise PacketError(Reason.IDENTIFIERS_UNSUPPORTED, "subscription identifiers")
    subscriptions: list[Subscription] = []
    while reader.left or not subscriptions:
        topic_filter, options = reader.text(), reader.number(1)
        if options & 0xC0 or options & 0x03 == 0x03 or options & 0x30 == 0x30:  # noqa: PLR2004
            raise PacketError(Reason.MALFORMED, f"subscription options {options:#x}")
        subscriptions.append(
            Subscription(
                topic_filter=topic_filter,
                qos=min(options & 0x03, _MAX_QOS),
                no_local=bool(options & 0x04),
                retain_as_published=bool(options & 0x08),
                retain_handling=options >> 4 & 3,
            )
        )
    return Subscribe(packet_id, tuple(subscriptions))


def _unsubscribe(reader: _Reader) -> Unsubscribe:
    packet_id = reader.packet_id()
    reader.properties(_OF_UNSUBSCRIBE)
    filters = [reader.text()]
    while reader.left:
        filters.append(reader.text())
    return Unsubscribe(packet_id, tuple(filters))


def _disconnect(reader: _Reader) -> Disconnect:
    reason = reader.number(1) if reader.left else 0
    numbers = reader.properties(_OF_DISCONNECT)[0] if reader.left else {}
    return Disconnect(reason, numbers.get(_SESSION_EXPIRY))


def _pingreq(_reader: _Reader) -> Pingreq:
    return Pingreq()


_PUBLISH: Final = 3
# By packet type (2.1.2): its reader and the flags that it must have (2.1.3).
_KINDS: Final[Mapping[int, tuple[Callable[[_Reader], Packet], int]]] = {
    1: (_connect, 0),
    4: (_puback, 0),
    8: (_subscribe, 2),
    10: (_unsubscribe, 2),
    12: (_pingreq, 0),
    14: (_disconnect, 0),
}
