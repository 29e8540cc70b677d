"""The gate in front of the embedded broker: who may connect, and to which topics.

A TCP proxy that reads each packet a client sends. A client connects as its own id with its own
password, publishes and subscribes below `edgeml/v1/{id}/` only, and is cut off when it tries
anything else. Behind the gate the broker knows one account, whose password only the gate has.
"""

import asyncio
import contextlib
import logging

from cloud_sync.messages import TOPIC_ROOT
from fleet.broker import mqtt5 as packets
from fleet.broker.credentials import SUPERUSER, Credentials

log = logging.getLogger(__name__)

MAX_PACKET_BYTES = 2 << 20
CONNECT_TIMEOUT_S = 10.0
IDLE_TIMEOUT_S = 120.0
MAX_CLIENTS = 5000

Account = tuple[str, str]


class Gate:
    """Listens for clients and connects those who may to the broker behind.

    Args:
        credentials: asked at every connect.
        broker: host and port of the broker behind.
        account: the one account that the broker behind knows.
    """

    def __init__(self, credentials: Credentials, broker: tuple[str, int], account: Account) -> None:
        self._credentials = credentials
        self._broker = broker
        self._account = account
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and cut all clients off."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) <= MAX_CLIENTS:
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the gate closes
        except (OSError, EOFError, TimeoutError, packets.MalformedPacketError) as error:
            log.debug("a client was cut off: %s", error)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            kind, body, _ = await _packet(reader)
        if kind >> 4 != packets.CONNECT:
            return
        connect = packets.read_connect(body)
        name = connect.username
        # A client id of one's own: nobody takes over another's session.
        if connect.client_id != name or not self._credentials.check(name, connect.password):
            writer.write(packets.connack(packets.BAD_CREDENTIALS))
            await writer.drain()
            return
        if connect.will_topic is not None and not may_use(name, connect.will_topic):
            writer.write(packets.connack(packets.NOT_AUTHORISED))
            await writer.drain()
            return
        inner_reader, inner_writer = await asyncio.open_connection(*self._broker)
        try:
            inner_writer.write(connect.with_credentials(*self._account))
            await inner_writer.drain()
            async with asyncio.TaskGroup() as tasks:
                down = tasks.create_task(_copy(inner_reader, writer))
                await self._guard(name, reader, writer, inner_writer)
                down.cancel()
        except* (OSError, EOFError, TimeoutError, packets.MalformedPacketError) as errors:
            log.debug("%s was cut off: %s", name, errors.exceptions)
        finally:
            inner_writer.close()

    async def _guard(
        self,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        inner: asyncio.StreamWriter,
    ) -> None:
        """Pass on what the client may send, until it ends or sends what it may not."""
        while True:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                first, body, raw = await _packet(reader)
            refused = _refused(name, first, body)
            if refused is not None:
                log.warning("%s may not use %s; it was cut off", name, refused[:120])
                writer.write(packets.disconnect(packets.NOT_AUTHORISED))
                await writer.drain()
                return
            inner.write(raw)
            await inner.drain()


def may_use(name: str, topic: str) -> bool:
    """Whether a client may publish to a topic or subscribe to a filter."""
    if name == SUPERUSER:
        return True
    return topic.startswith(f"{TOPIC_ROOT}/{name}/")


def _refused(name: str, first: int, body: bytes) -> str | None:
    """What a packet uses that its sender may not; None for a packet that may pass."""
    kind = first >> 4
    if kind == packets.PUBLISH:
        topic = packets.read_publish_topic(first & 0x0F, body)
        return None if may_use(name, topic) else topic
    if kind == packets.SUBSCRIBE:
        filters = packets.read_subscribe_filters(body)
        return next((f for f in filters if not may_use(name, f)), None)
    if kind in {packets.CONNECT, packets.AUTH}:
        raise packets.MalformedPacketError("it connects twice")
    return None


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """One packet: its first byte, its body, and all of its bytes."""
    head = await reader.readexactly(2)
    length_bytes = head[1:]
    while length_bytes[-1] & 0x80:
        if len(length_bytes) >= packets.MAX_LENGTH_BYTES:
            raise packets.MalformedPacketError("its length has too many bytes")
        length_bytes += await reader.readexactly(1)
    size = packets.Reader(length_bytes).length()
    if size > MAX_PACKET_BYTES:
        raise packets.MalformedPacketError(f"it has {size} bytes")
    body = await reader.readexactly(size)
    return head[0], body, head[:1] + length_bytes + body


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on; the broker's end is the client's."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    raise EOFError("the broker closed the connection")
