"""What a client sees on its socket, byte for byte: what paho would hide or do by itself."""

import asyncio
import struct
from collections.abc import Awaitable, Callable

import pytest

from fleet.broker import SUPERUSER, EmbeddedBroker, start
from fleet.broker.connection import CONNECT_S, MAX_KEEPALIVE_S
from fleet.broker.encoding import length
from fleet.broker.packets import MAX_PACKET, Reason

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP, GOODBYE = 0x20, 0x30, 0x40, 0x90, 0xD0, 0xE0
OWN = "edgeml/v1/cam"


class Accounts:
    def check(self, username: str, password: str) -> bool:
        return password == f"word of {username}"


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


class Wire:
    """A client of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, first: int, body: bytes = b"") -> None:
        self._writer.write(bytes((first,)) + length(len(body)) + body)

    async def read(self, kind: int) -> tuple[int, bytes]:
        """The flags and the body of the next packet, which is of this kind."""
        async with asyncio.timeout(5):
            first, size, shift = (await self._reader.readexactly(1))[0], 0, 0
            while True:
                byte = (await self._reader.readexactly(1))[0]
                size |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            body = await self._reader.readexactly(size)
        assert first & 0xF0 == kind, f"{first:#x} {body!r}"
        return first & 0x0F, body

    async def message(self) -> tuple[bool, int, bytes]:
        """The next message: whether it is marked as repeated, its packet id and its payload."""
        flags, body = await self.read(PUBLISH)
        at = 2 + int.from_bytes(body[:2])
        packet_id = int.from_bytes(body[at : at + 2]) if flags & 6 else 0
        return bool(flags & 8), packet_id, body[at + (3 if packet_id else 1) :]

    async def ended(self) -> Reason | None:
        """Wait for the broker to end the connection; the reason that it gave, if it did."""
        async with asyncio.timeout(CONNECT_S + 3):
            data = await self._reader.read()
        return Reason(data[-2]) if len(data) >= 4 and data[-4] == GOODBYE else None

    async def quiet(self) -> None:
        """Nothing comes."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await self._reader.readexactly(1)

    async def subscribe(self, topic: str, qos: int = 1) -> Reason:
        self.send(0x82, b"\x00\x01\x00" + text(topic) + bytes((qos,)))
        _, body = await self.read(SUBACK)
        return Reason(body[-1])

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> Reason:
        self.send(0x32 | retain, text(topic) + b"\x00\x07\x00" + payload)
        _, body = await self.read(PUBACK)
        return Reason(body[2]) if len(body) > 2 else Reason.SUCCESS

    def acknowledge(self, packet_id: int) -> None:
        self.send(0x40, struct.pack(">H", packet_id))

    def cut(self) -> None:
        self._writer.transport.abort()


class Broker:
    def __init__(self, broker: EmbeddedBroker) -> None:
        self.core = broker
        self._port = int(broker.url.rsplit(":", 1)[1])
        self._open: list[Wire] = []

    async def connect(
        self,
        name: str,
        *,
        keepalive: int = 30,
        expiry: int = 300,
        window: int = 0xFFFF,
        will: tuple[str, bytes] | None = None,
        present: bool = False,
        extra: bytes = b"",
    ) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self._port))
        self._open.append(wire)
        flags = 0xC0 | (0x2C if will else 0)
        properties = struct.pack(">BIBH", 0x11, expiry, 0x21, window)
        last = b"\x00" + text(will[0]) + text(will[1].decode()) if will else b""
        head = text("MQTT") + struct.pack(">BBHB", 5, flags, keepalive, len(properties))
        wire.send(
            0x10, head + properties + text(name) + last + text(name) + text(f"word of {name}")
        )
        if extra:
            wire._writer.write(extra)
        _, body = await wire.read(CONNACK)
        assert body[1] == Reason.SUCCESS
        assert bool(body[0]) == present
        self.answer = body
        return wire

    def close(self) -> None:
        for wire in self._open:
            wire.cut()


def on_broker(body: Callable[[Broker], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            core = await start("127.0.0.1", 0, Accounts())
            broker = Broker(core)
            try:
                await body(broker)
            finally:
                broker.close()
                await core.stop()

    asyncio.run(bounded())


def test_a_client_that_is_silent_for_half_as_long_again_is_cut_off_and_its_will_comes() -> None:
    async def body(broker: Broker) -> None:
        fleet = await broker.connect(SUPERUSER)
        await fleet.subscribe("edgeml/v1/+/up/#")
        cam = await broker.connect("cam", keepalive=1, will=(f"{OWN}/up/presence", b"gone"))
        begun = asyncio.get_running_loop().time()
        assert await cam.ended() is Reason.KEEP_ALIVE_TIMEOUT
        assert 1.4 < asyncio.get_running_loop().time() - begun < 3
        assert (await fleet.message())[2] == b"gone"

    on_broker(body)


def test_a_client_that_pings_stays() -> None:
    async def body(broker: Broker) -> None:
        cam = await broker.connect("cam", keepalive=1)
        for _ in range(6):
            await asyncio.sleep(0.5)
            cam.send(0xC0)
            await cam.read(PINGRESP)

    on_broker(body)


@pytest.mark.parametrize("asked", [0, MAX_KEEPALIVE_S + 1])
def test_a_client_without_a_bounded_keep_alive_is_given_one(asked: int) -> None:
    async def body(broker: Broker) -> None:
        await broker.connect("cam", keepalive=asked)
        assert b"\x13" + struct.pack(">H", MAX_KEEPALIVE_S) in broker.answer

    on_broker(body)


@pytest.mark.parametrize(("reason", "heard"), [(0x00, False), (0x04, True)])
def test_a_goodbye_takes_the_will_with_it_unless_it_asks_for_it(reason: int, heard: bool) -> None:
    async def body(broker: Broker) -> None:
        fleet = await broker.connect(SUPERUSER)
        await fleet.subscribe("#")
        cam = await broker.connect("cam", will=(f"{OWN}/up/presence", b"gone"))
        cam.send(0xE0, bytes((reason, 0)))
        await cam.ended()
        if heard:
            assert (await fleet.message())[2] == b"gone"
        else:
            await fleet.quiet()

    on_broker(body)


def test_a_will_is_published_when_the_connection_is_taken_over_or_breaks_the_protocol() -> None:
    async def body(broker: Broker) -> None:
        fleet = await broker.connect(SUPERUSER)
        await fleet.subscribe("#")
        old = await broker.connect("cam", will=(f"{OWN}/up/presence", b"first"))
        new = await broker.connect("cam", will=(f"{OWN}/up/presence", b"second"), present=True)
        assert await old.ended() is Reason.SESSION_TAKEN_OVER
        assert (await fleet.message())[2] == b"first"
        new.send(0xF0)
        assert await new.ended() is Reason.PROTOCOL_ERROR
        assert (await fleet.message())[2] == b"second"

    on_broker(body)


def test_a_will_is_retained_for_those_who_come_later() -> None:
    async def body(broker: Broker) -> None:
        cam = await broker.connect("cam", will=(f"{OWN}/up/presence", b"gone"))
        cam.cut()
        while broker.core.connected:  # noqa: ASYNC110 -- the broker has no event for it
            await asyncio.sleep(0.01)
        fleet = await broker.connect(SUPERUSER)
        await fleet.subscribe("edgeml/v1/+/up/presence")
        assert (await fleet.message())[2] == b"gone"
        assert await fleet.publish(f"{OWN}/up/presence", b"", retain=True) is Reason.SUCCESS

    on_broker(body)


def test_what_was_not_acknowledged_comes_again_marked_under_its_own_number() -> None:
    async def body(broker: Broker) -> None:
        fleet = await broker.connect(SUPERUSER)
        cam = await broker.connect("cam")
        await cam.subscribe(f"{OWN}/down/#")
        for payload in (b"one", b"two", b"three"):
            await fleet.publish(f"{OWN}/down/desired", payload)
        first = [await cam.message() for _ in range(3)]
        assert [(again, payload) for again, _, payload in first] == [
            (False, b"one"),
            (False, b"two"),
            (False, b"three"),
        ]
        cam.acknowledge(first[1][1])
        cam.send(0xC0)
        await cam.read(PINGRESP)
        cam.cut()
        cam = await broker.connect("cam", present=True)
        assert [await cam.message(), await cam.message()] == [
            (True, first[0][1], b"one"),
            (True, first[2][1], b"three"),
        ]
        await cam.quiet()

    on_broker(body)


def test_no_more_is_in_flight_than_the_client_takes() -> None:
    async def body(broker: Broker) -> None:
        fleet = await broker.connect(SUPERUSER)
        cam = await broker.connect("cam", window=2)
        await cam.subscribe(f"{OWN}/down/#")
        for n in range(4):
            await fleet.publish(f"{OWN}/down/desired", b"%d" % n)
        first, second = await cam.message(), await cam.message()
        await cam.quiet()
        cam.acknowledge(second[1])
        third = await cam.message()
        await cam.quiet()
        assert [first[2], second[2], third[2]] == [b"0", b"1", b"2"]
        cam.cut()
        # The new connection takes one at a time of the two that were not acknowledged, too.
        cam = await broker.connect("cam", window=1, present=True)
        for again, payload in ((True, b"0"), (True, b"2"), (False, b"3")):
            repeated, packet_id, came = await cam.message()
            assert (repeated, came) == (again, payload)
            await cam.quiet()
            cam.acknowledge(packet_id)

    on_broker(body)


def test_a_session_ends_when_its_time_is_over_and_a_goodbye_may_shorten_it() -> None:
    async def body(broker: Broker) -> None:
        cam = await broker.connect("cam", expiry=300)
        await cam.subscribe(f"{OWN}/down/#")
        cam.send(0xE0, b"\x00" + b"\x05\x11\x00\x00\x00\x01")
        await cam.ended()
        cam = await broker.connect("cam", expiry=1, present=True)
        cam.cut()
        await asyncio.sleep(2.2)
        assert broker.core.router.of("cam") == []
        fleet = await broker.connect(SUPERUSER)
        await fleet.publish(f"{OWN}/down/desired", b"for nobody")
        cam = await broker.connect("cam", present=False)
        await cam.quiet()

    on_broker(body)


def test_a_goodbye_does_not_give_a_session_a_life_that_it_had_not() -> None:
    async def body(broker: Broker) -> None:
        cam = await broker.connect("cam", expiry=0)
        cam.send(0xE0, b"\x00" + b"\x05\x11\x00\x00\x00\x09")
        assert await cam.ended() is Reason.PROTOCOL_ERROR
        assert broker.core.router.of("cam") == []

    on_broker(body)


@pytest.mark.parametrize(
    "topic", ["#", "+/#", "edgeml/v1/#", "edgeml/v1/+/down/#", "edgeml/v1/cam-2/#", "edgeml/v1/cam"]
)
def test_a_device_that_asks_for_more_than_its_own_is_refused_and_stays(topic: str) -> None:
    async def body(broker: Broker) -> None:
        fleet = await broker.connect(SUPERUSER)
        cam = await broker.connect("cam")
        assert await cam.subscribe(topic) is Reason.NOT_AUTHORIZED
        assert await fleet.publish("edgeml/v1/cam-2/down/desired", b"secret") is Reason.SUCCESS
        assert await cam.subscribe(f"{OWN}/down/#") is Reason.GRANTED_QOS_1
        await fleet.publish(f"{OWN}/down/desired", b"own")
        assert (await cam.message())[2] == b"own"
        await cam.quiet()

    on_broker(body)


@pytest.mark.parametrize("topic", ["edgeml/v1/cam-2/up/state", "edgeml/v1/cam", "x", "$SYS/x"])
def test_a_device_that_speaks_elsewhere_is_told_so_and_nobody_hears_it(topic: str) -> None:
    async def body(broker: Broker) -> None:
        fleet = await broker.connect(SUPERUSER)
        await fleet.subscribe("#")
        cam = await broker.connect("cam")
        for retain in (False, True):
            assert await cam.publish(topic, b"forged", retain=retain) is Reason.NOT_AUTHORIZED
        await fleet.quiet()
        assert await fleet.subscribe(topic) is Reason.GRANTED_QOS_1
        await fleet.quiet()

    on_broker(body)


def test_a_message_above_the_bound_ends_the_connection_of_its_sender_only() -> None:
    async def body(broker: Broker) -> None:
        fleet = await broker.connect(SUPERUSER)
        cam = await broker.connect("cam")
        cam._writer.write(b"\x30" + length(MAX_PACKET + 1))
        assert await cam.ended() is Reason.PACKET_TOO_LARGE
        assert await fleet.publish(f"{OWN}/down/desired", b"x") is Reason.SUCCESS

    on_broker(body)


def test_what_comes_in_one_piece_with_the_connect_is_worked_on_after_it() -> None:
    async def body(broker: Broker) -> None:
        cam = await broker.connect("cam", extra=b"\xc0\x00\xc0\x00")
        await cam.read(PINGRESP)
        await cam.read(PINGRESP)

    on_broker(body)
