"""The little of MQTT 5 that a gate in front of a broker must read: who connects, to what.

Pure: bytes in, values out. Source: MQTT 5.0 (OASIS), sections 2.1.4, 3.1, 3.3 and 3.8.
"""

from dataclasses import dataclass

CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, AUTH = 1, 3, 8, 10, 15
BAD_CREDENTIALS, NOT_AUTHORISED, PACKET_TOO_LARGE, PROTOCOL_ERROR = 0x86, 0x87, 0x95, 0x82
MAX_LENGTH_BYTES = 4

_LEVEL = 5
_WILL, _PASSWORD, _USERNAME = 0x04, 0x40, 0x80


class MalformedPacketError(ValueError):
    """The bytes are no such packet."""


@dataclass(frozen=True)
class Connect:
    """A CONNECT packet: who connects, its last will's topic, and the rest as it stands."""

    client_id: str
    username: str
    password: str
    will_topic: str | None
    _head: bytes
    _middle: bytes

    def with_credentials(self, username: str, password: str) -> bytes:
        """The same packet with other credentials, as bytes."""
        flags = self._head[7] | _USERNAME | _PASSWORD
        head = self._head[:7] + bytes([flags]) + self._head[8:]
        body = head + self._middle + _text(username) + _text(password)
        return bytes([CONNECT << 4]) + encode_length(len(body)) + body


class Reader:
    """Reads fields from a packet's body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if self.at + count > len(self._data):
            raise MalformedPacketError("it ends too early")
        taken = self._data[self.at : self.at + count]
        self.at += count
        return taken

    def binary(self) -> bytes:
        """A field with a length of two bytes."""
        return self.take(int.from_bytes(self.take(2)))

    def text(self) -> str:
        """A UTF-8 field."""
        try:
            return self.binary().decode()
        except UnicodeDecodeError:
            raise MalformedPacketError("a text is not UTF-8") from None

    def length(self) -> int:
        """A variable byte integer."""
        value = 0
        for shift in range(MAX_LENGTH_BYTES):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:  # noqa: PLR2004 -- the continuation bit
                return value
        raise MalformedPacketError("a length has too many bytes")

    @property
    def done(self) -> bool:
        """Whether all was read."""
        return self.at >= len(self._data)


def read_connect(body: bytes) -> Connect:
    """Read a CONNECT packet's body.

    Raises:
        MalformedPacketError: it is none of MQTT 5.
    """
    reader = Reader(body)
    if reader.text() != "MQTT" or reader.take(1)[0] != _LEVEL:
        raise MalformedPacketError("it is not MQTT 5")
    flags = reader.take(1)[0]
    reader.take(2)
    reader.take(reader.length())
    head = body[: reader.at]
    client_id = reader.text()
    will_topic = None
    if flags & _WILL:
        reader.take(reader.length())
        will_topic = reader.text()
        reader.binary()
    middle = body[len(head) : reader.at]
    username = reader.text() if flags & _USERNAME else ""
    password = reader.text() if flags & _PASSWORD else ""
    if not reader.done:
        raise MalformedPacketError("it has bytes too many")
    return Connect(client_id, username, password, will_topic, head, middle)


def read_publish_topic(flags: int, body: bytes) -> str:
    """The topic of a PUBLISH packet.

    Raises:
        MalformedPacketError: it is none, or uses a topic alias, which hides the topic.
    """
    reader = Reader(body)
    topic = reader.text()
    if flags & 0x06:
        reader.take(2)
    reader.take(reader.length())
    if not topic:
        raise MalformedPacketError("it has no topic")
    return topic


def read_subscribe_filters(body: bytes) -> list[str]:
    """The topic filters of a SUBSCRIBE packet.

    Raises:
        MalformedPacketError: it is none.
    """
    reader = Reader(body)
    reader.take(2)
    reader.take(reader.length())
    filters = []
    while not reader.done:
        filters.append(reader.text())
        reader.take(1)
    if not filters:
        raise MalformedPacketError("it has no filter")
    return filters


def encode_length(value: int) -> bytes:
    """A variable byte integer.

    >>> encode_length(321).hex()
    'c102'
    """
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)


def connack(reason: int) -> bytes:
    """A CONNACK that refuses."""
    return bytes([0x20, 3, 0, reason, 0])


def disconnect(reason: int) -> bytes:
    """A DISCONNECT with a reason."""
    return bytes([0xE0, 2, reason, 0])


def _text(value: str) -> bytes:
    data = value.encode()
    return len(data).to_bytes(2) + data
