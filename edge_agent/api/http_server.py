"""A small HTTP/1.1 server: asyncio for the sockets, h11 for the protocol, bounds on everything.

h11 speaks the protocol and is on every device (httpx brings it); what is here are the limits: how
many connections, how large a head and a body, how long either may take to come, and how long an
answer may take to be fetched. A client that is slow holds its connection and nothing else, and
when all places are taken the one that has waited longest for a request is let go. See
docs/adr/0005-local-api-http.md.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import h11
import msgspec

_READ = 1 << 16
_LINGER_S = 1.0
_CLOSE_S = 0.3
_TURNS = 10
_TEXT = "text/plain; charset=utf-8"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one listener; times in seconds. `bodies_bytes` is of all bodies at a time."""

    connections: int = 32
    head_bytes: int = 16 << 10
    body_bytes: int = 32 << 20
    bodies_bytes: int = 96 << 20
    idle_s: float = 60.0
    request_s: float = 15.0
    response_s: float = 15.0


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request; `path` is decoded, `headers` are by lower-case name."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = _TEXT
    headers: dict[str, str] = {}


class Refused(Exception):  # noqa: N818 -- an answer, not a fault
    """The request is answered with this and the connection is closed."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def refused(status: int, text: str) -> Refused:
    """A refusal in words."""
    return Refused(Response(status=status, body=f"{text}\n".encode()))


CheckHead = Callable[[Request], Response | None]
Answer = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Serves connections of a listening socket on the running event loop.

    Args:
        check: looks at a request before its body is read; what it returns is the answer.
        answer: makes the answer; what it raises is the caller's fault and ends the connection.
        tls: where the listener speaks it.
    """

    def __init__(
        self,
        check: CheckHead,
        answer: Answer,
        limits: Limits,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._check = check
        self._answer = answer
        self._limits = limits
        self._tls = tls
        self._waiting: dict[asyncio.StreamWriter, None] = {}  # in the order in which they began
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._held: dict[asyncio.StreamWriter, int] = {}  # bytes of bodies that wait for an answer
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Begin to accept."""
        if listening.family == socket.AF_UNIX:
            self._server = await asyncio.start_unix_server(self._connection, sock=listening)
        else:
            self._server = await asyncio.start_server(
                self._connection,
                sock=listening,
                ssl=self._tls,
                ssl_handshake_timeout=self._limits.request_s if self._tls else None,
            )

    async def close(self) -> None:
        """Stop accepting and let every connection go."""
        if self._server is not None:
            # asyncio loses who was accepted and not begun when its server is closed: first no
            # more are accepted, then those become ours, then it is closed.
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            await _settled()
            self._server.close()
        tasks = [task for task in self._open.values() if task is not None]
        for writer in list(self._open):
            writer.transport.abort()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_S)
            for task in late:  # they wait for an answer that nobody will fetch
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_CLOSE_S)
        await _settled()  # the loop closes what was let go

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._limits.connections:
            if not self._waiting:
                writer.transport.abort()
                return
            next(iter(self._waiting)).transport.abort()
        self._open[writer] = asyncio.current_task()
        try:
            await self._serve(reader, writer)
        except (OSError, h11.ProtocolError, asyncio.CancelledError):
            pass  # the client is gone, too slow (TimeoutError), or speaks something else
        finally:
            self._open.pop(writer, None)
            self._waiting.pop(writer, None)
            self._held.pop(writer, None)
            writer.transport.abort()

    async def _let_finish(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read away what a refused client still sends: a reset could overtake the answer."""
        async with asyncio.timeout(_LINGER_S):
            if writer.can_write_eof():
                writer.write_eof()
            while await reader.read(_READ):
                pass

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limits = self._limits
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        while True:
            self._waiting[writer] = None
            self._held.pop(writer, None)
            try:
                request = await self._request(protocol, reader, writer)
            except Refused as said:
                self._held.pop(writer, None)
                await self._send(protocol, writer, said.response, close=True)
                await self._let_finish(reader, writer)
                return
            except h11.RemoteProtocolError as error:
                if protocol.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                    answer = Response(status=error.error_status_hint, body=f"{error}\n".encode())
                    await self._send(protocol, writer, answer, close=True)
                return
            if request is None:
                return
            self._waiting.pop(writer, None)
            method = request.method
            response = await self._answer(request)
            del request  # its body goes before the answer does
            await self._send(protocol, writer, response, head=method == "HEAD")
            if protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE:
                return
            protocol.start_next_cycle()

    async def _request(
        self, protocol: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Request | None:
        """Read one request; None where the client is done."""
        head: Request | None = None
        body = bytearray()
        begun = False
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._limits.idle_s) as timeout:
            while True:
                event = protocol.next_event()
                if event is h11.NEED_DATA:
                    if protocol.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[])
                        writer.write(protocol.send(go_on) or b"")
                    # h11 bounds a head that is not whole yet: it must not come whole at once.
                    data = await reader.read(_READ if head else self._limits.head_bytes)
                    protocol.receive_data(data)
                    if data and not begun:
                        begun = True
                        timeout.reschedule(loop.time() + self._limits.request_s)
                elif isinstance(event, h11.Request):
                    head = _head(event)
                    answer = self._check(head)
                    if answer is not None:
                        raise Refused(answer)
                    self._require_fits(head)
                elif isinstance(event, h11.Data):
                    body += event.data
                    self._hold(writer, len(body))
                elif isinstance(event, h11.EndOfMessage) and head is not None:
                    return msgspec.structs.replace(head, body=bytes(body))
                else:
                    return None

    def _hold(self, writer: asyncio.StreamWriter, size: int) -> None:
        if size > self._limits.body_bytes:
            raise refused(413, self._too_large())
        self._held[writer] = size
        if sum(self._held.values()) > self._limits.bodies_bytes:
            raise Refused(_FULL)

    def _require_fits(self, head: Request) -> None:
        length = head.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.body_bytes:
            raise refused(413, self._too_large())

    def _too_large(self) -> str:
        return f"The body is too large: at most {self._limits.body_bytes} bytes are read."

    async def _send(
        self,
        protocol: h11.Connection,
        writer: asyncio.StreamWriter,
        response: Response,
        *,
        head: bool = False,
        close: bool = False,
    ) -> None:
        headers = {
            "content-type": response.content_type,
            "content-length": str(len(response.body)),
            **_ALWAYS,
            **response.headers,
            **({"connection": "close"} if close else {}),
        }
        start = h11.Response(
            status_code=response.status,
            reason=HTTPStatus(response.status).phrase.encode(),
            headers=[(name.encode(), value.encode()) for name, value in headers.items()],
        )
        parts = [protocol.send(start)]
        if not head:
            parts.append(protocol.send(h11.Data(data=response.body)))
        parts.append(protocol.send(h11.EndOfMessage()))
        async with asyncio.timeout(self._limits.response_s):
            writer.writelines([part for part in parts if part])
            await writer.drain()


_FULL = Response(
    status=503,
    body=b"The requests that are being answered take all the memory they may. Ask again later.\n",
    headers={"retry-after": "1"},
)
_ALWAYS: Mapping[str, str] = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


async def _settled() -> None:
    """Let the loop come round as often as asyncio's own callbacks need, and more."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _head(event: Any) -> Request:
    target = event.target.decode("latin-1")
    try:
        parts = urlsplit(target)
    except ValueError:
        raise refused(400, "The address cannot be read.") from None
    headers = {}
    for name, value in event.headers:
        key = name.decode("latin-1")
        if key in headers and key in {"authorization", "origin", "inference-header-content-length"}:
            raise refused(400, f"The header {key} is there twice.")
        headers[key] = value.decode("latin-1")
    return Request(
        method=event.method.decode("latin-1"),
        path=unquote(parts.path) or "/",
        query=parts.query,
        headers=headers,
    )
