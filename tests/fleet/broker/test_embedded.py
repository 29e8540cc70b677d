"""The embedded broker in an event loop that it shares, as it does with the fleet."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.broker_contract.client import Probe
from edgeml.errors import UserError
from fleet.broker import SUPERUSER, EmbeddedBroker, start

ACCOUNTS = {SUPERUSER: "f", "cam": "c"}


MQTT_5 = b"\x00\x04MQTT\x05\xc2\x00\x1e\x05\x11\x00\x00\x01\x2c"  # clean start, 30 s, expiry


def text(value: str) -> bytes:
    return len(value).to_bytes(2) + value.encode()


class Accounts:
    """Accounts that can be taken away; asking for "broken" fails as a database might."""

    def __init__(self) -> None:
        self.known = dict(ACCOUNTS)

    def check(self, username: str, password: str) -> bool:
        if username == "broken":
            raise OSError("the database is gone")
        return self.known.get(username) == password


@asynccontextmanager
async def running() -> AsyncIterator[tuple[EmbeddedBroker, Accounts, int]]:
    accounts = Accounts()
    broker = await start("127.0.0.1", 0, accounts)
    try:
        yield broker, accounts, int(broker.url.rsplit(":", 1)[1])
    finally:
        await broker.stop()


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(bounded())


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 -- what is awaited happens in paho's thread
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_an_address_that_is_not_loopback_is_refused(host: str) -> None:
    with pytest.raises(UserError, match="does not listen on"):
        asyncio.run(start(host, 0, Accounts()))


def test_a_port_that_is_taken_is_a_sentence() -> None:
    async def body() -> None:
        async with running() as (_, _, port):
            with pytest.raises(UserError, match="cannot listen"):
                await start("127.0.0.1", port, Accounts())

    run(body)


def test_a_revoked_device_is_cut_off_and_its_session_ends() -> None:
    async def body() -> None:
        async with running() as (broker, accounts, port):
            device = await asyncio.to_thread(Probe(port, "cam", "c").open)
            assert device.connected
            assert broker.connected == 1
            del accounts.known["cam"]
            broker.disconnect("cam")
            await until(lambda: not device.connected)
            assert broker.router.of("cam") == []
            device.close()
            again = await asyncio.to_thread(Probe(port, "cam", "c").open)
            assert again.refused
            again.close()

    run(body)


def test_credentials_that_cannot_be_checked_refuse_and_the_broker_lives() -> None:
    async def body() -> None:
        async with running() as (_, _, port):
            refused = await asyncio.to_thread(Probe(port, "broken", "x").open)
            assert refused.reason == "Server unavailable"
            refused.close()
            device = await asyncio.to_thread(Probe(port, "cam", "c").open)
            assert device.connected
            device.close()

    run(body)


def test_stopping_frees_the_port_and_twice_is_once() -> None:
    async def body() -> None:
        async with running() as (broker, _, port):
            device = await asyncio.to_thread(Probe(port, "cam", "c").open)
            await broker.stop()
            await broker.stop()
            with socket.socket() as sock:
                assert sock.connect_ex(("127.0.0.1", port)) != 0
            await until(lambda: not device.connected)
            device.close()

    run(body)


def test_a_stranger_who_says_nothing_is_cut_off() -> None:
    async def body() -> None:
        async with running() as (_, _, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()

    run(body)


def test_a_device_that_reads_nothing_does_not_hold_the_others_up() -> None:
    async def body() -> None:
        async with running() as (broker, _, port):
            hello = MQTT_5 + text("cam") + text("cam") + text("c")
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(bytes((0x10, len(hello))) + hello)
            wish = b"\x00\x01\x00" + text("edgeml/v1/cam/down/#") + b"\x01"
            writer.write(bytes((0x82, len(wish))) + wish)
            await until(lambda: any(s.subscriptions for s in broker.router.of("cam")))
            fleet = await asyncio.to_thread(Probe(port, SUPERUSER, "f").open)
            for _ in range(100):
                fleet.publish("edgeml/v1/cam/down/desired", bytes(200_000), wait=False)
            assert await asyncio.to_thread(fleet.publish, "edgeml/v1/cam/down/x", b"last")
            session = broker.router.of("cam")[0]
            assert session.dropped > 0
            fleet.close()
            assert not reader.at_eof()
            writer.transport.abort()

    run(body)
