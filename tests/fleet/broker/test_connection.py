"""A connection without a socket: whatever a client sends, the broker answers in whole packets."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.broker.connection import Connection
from fleet.broker.credentials import SUPERUSER
from fleet.broker.decoding import Frames
from fleet.broker.encoding import length
from fleet.broker.packets import Connect, Message
from fleet.broker.router import Router
from fleet.broker.sessions import DEVICE_BOUNDS, Session


def text(value: str) -> bytes:
    return len(value).to_bytes(2) + value.encode()


def packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + length(len(body)) + body


HELLO = packet(
    0x10, b"\x00\x04MQTT\x05\xc2\x00\x1e\x05\x11\x00\x00\x01\x2c" + text("cam") * 2 + text("c")
)
VALID = [
    packet(0x32, text("edgeml/v1/cam/up/state") + b"\x00\x07\x00payload"),
    packet(0x30, text("edgeml/v1/cam-2/up/state") + b"\x00payload"),
    packet(0x82, b"\x00\x01\x00" + text("edgeml/v1/cam/down/#") + b"\x01" + text("#") + b"\x01"),
    packet(0xA2, b"\x00\x02\x00" + text("edgeml/v1/cam/down/#")),
    packet(0x40, b"\x00\x01"),
    packet(0xC0, b""),
    packet(0xE0, b""),
    HELLO,
]


class Transport(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Hub:
    """A broker that knows everybody."""

    def __init__(self) -> None:
        self.router = Router()
        self.connection: Any = None

    def opened(self, connection: Connection) -> bool:
        self.connection = connection
        return True

    def introduced(self, connection: Connection, connect: Connect) -> None:
        session, present = self.router.attach(connect, connect.client_id or "cam")
        connection.accept(session, connect, present=present)

    def wake(self, sessions: tuple[Session, ...]) -> None:
        if self.connection.session in sessions:
            self.connection.pump()

    def lost(self, connection: Connection) -> None:
        pass


@settings(max_examples=500, deadline=None)
@given(
    st.booleans(),
    st.lists(st.one_of(st.sampled_from(VALID), st.binary(max_size=40)), max_size=8),
    st.integers(1, 60),
)
def test_whatever_a_client_sends_it_gets_whole_packets_or_the_end(
    introduced: bool, pieces: list[bytes], step: int
) -> None:
    async def body() -> None:
        hub, transport = Hub(), Transport()
        connection = Connection(hub)
        connection.connection_made(transport)
        stream = (HELLO if introduced else b"") + b"".join(pieces)
        for at in range(0, len(stream), step):
            connection.data_received(stream[at : at + step])
            if transport.closed:
                break
        answers = Frames(1 << 20)
        answers.feed(transport.written)
        kinds = [first >> 4 for first, _ in answers]
        assert not answers._buffer
        assert kinds[:1] in ([], [2])
        assert set(kinds[1:]) <= {3, 4, 9, 11, 13, 14}
        if introduced:
            assert kinds
        assert connection.open is not transport.closed

    asyncio.run(body())


def test_a_client_that_does_not_read_is_not_read_from_and_gets_the_rest_when_it_does() -> None:
    async def body() -> None:
        hub, transport = Hub(), Transport()
        connection = Connection(hub)
        connection.connection_made(transport)
        connection.data_received(HELLO + VALID[2])
        fleet, _ = hub.router.attach(
            Connect(
                client_id=SUPERUSER,
                username=SUPERUSER,
                password="",
                clean_start=True,
                keepalive_s=30,
                expiry_s=0,
                receive_maximum=10,
                maximum_packet=1000,
                will=None,
            ),
            SUPERUSER,
        )
        connection.pause_writing()
        before = transport.written
        message = Message(topic="edgeml/v1/cam/down/x", payload=b"late", qos=1, retain=False)
        hub.wake(hub.router.publish(fleet, message).woken)
        assert transport.written == before
        connection.resume_writing()
        assert transport.written.endswith(b"late")

    asyncio.run(body())


def test_what_a_returning_client_does_not_read_is_not_heaped_up_for_it() -> None:
    class Slow(Transport):
        """One whose client reads nothing: full after the first write that is worth the name."""

        connection: Connection

        def write(self, data: bytes | bytearray | memoryview) -> None:
            super().write(data)
            if len(self.written) > 1 << 16:
                self.connection.pause_writing()

    async def body() -> None:
        hub, transport = Hub(), Slow()
        session = Session("cam", "cam", DEVICE_BOUNDS)
        hub.router._sessions["cam", "cam"] = session
        session.resume(1000, 1 << 20)
        for _ in range(40):
            session.offer(Message(topic="t", payload=bytes(60_000), qos=1, retain=False))
        assert len(list(session.take())) == 40
        transport.connection = connection = Connection(hub)
        connection.connection_made(transport)
        connection.data_received(HELLO.replace(b"\x05\xc2", b"\x05\xc0"))  # no clean start
        assert len(transport.written) < 200_000
        for _ in range(40):
            connection.resume_writing()
        assert len(transport.written) > 40 * 60_000

    asyncio.run(body())
