"""Uvicorn with bounds: strangers cannot use up what a listener has.

Uvicorn waits for a request for as long as it takes to come, and takes every connection. Here
what a client owes (a request's head, a device's body) has a deadline, and a full listener lets
go of the connection that has owed it longest, so that whoever asks at once is answered even
while strangers hold as many connections as they can.
"""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from socket import socket
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from fleet.listeners import Tls

PATIENCE_S = 30.0
MAX_CONNECTIONS = 4000
_GRACE_S = 3
_SWEEP_S = 0.5
_BACKLOG = 64  # taken at once, before any of them is counted
_SHARES = 4  # of the files that a process may open: two listeners, the broker, all the rest


@dataclass(frozen=True)
class Limits:
    """What a listener bears.

    `patience_s` is how long a client may owe its request. `bodies` says whether that holds for
    bodies, too; where only an operator may send one, a large release may take its time.
    """

    bodies: bool
    patience_s: float = PATIENCE_S
    connections: int = MAX_CONNECTIONS


def open_files() -> int:
    """Raise this process's limit of open files as far as it may; returns the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit if limit != resource.RLIM_INFINITY else 1 << 20


class _Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: the fleet has one for all parts."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Doorkeeper:
    """Knows since when each connection of a listener owes something; ends those that are late."""

    def __init__(self, limits: Limits, connections: int) -> None:
        self._limits = limits
        self._most = connections
        self._owing: dict[Any, tuple[object, float]] = {}  # the longest owing first
        self._connections: set[Any] = set()

    def protocol(self, **given: Any) -> asyncio.Protocol:
        """Make the protocol of a new connection, and room for it."""
        self._connections = given["server_state"].connections
        self._trim()
        return AutoHTTPProtocol(**given)

    async def watch(self) -> None:
        """End what is late, for ever."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._look()
            late = asyncio.get_running_loop().time() - self._limits.patience_s
            for protocol, (_, since) in tuple(self._owing.items()):
                if since < late:
                    self._end(protocol)
            self._trim()

    def _trim(self) -> None:
        """Make room for one more, where there is somebody who owes something."""
        if len(self._connections) < self._most:
            return
        self._look()
        for protocol in tuple(self._owing):
            if len(self._connections) < self._most:
                return
            self._end(protocol)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        found = {}
        for protocol in self._connections:
            if self._owes(protocol):
                known = self._owing.get(protocol)
                same = known is not None and known[0] in {None, protocol.cycle}
                found[protocol] = (protocol.cycle, known[1] if known and same else now)
        self._owing = dict(sorted(found.items(), key=lambda item: item[1][1]))

    def _owes(self, protocol: Any) -> bool:
        """Whether it is the client's turn; a websocket has no such turns."""
        if not hasattr(protocol, "cycle"):
            return False
        cycle = protocol.cycle
        if cycle is None or cycle.response_complete:
            return True
        return bool(cycle.more_body and self._limits.bodies)

    def _end(self, protocol: Any) -> None:
        del self._owing[protocol]
        self._connections.discard(protocol)
        protocol.transport.abort()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """An application that has started and can be served within the block."""
    async with app.router.lifespan_context(app):
        yield


@asynccontextmanager
async def served(
    app: ASGIApp, taken: socket, tls: Tls | None, stop: asyncio.Event, limits: Limits
) -> AsyncIterator[None]:
    """An application on a socket within the block; `stop` is set when it has ended by itself.

    Its start and its end are not part of it: see `lifespan`.
    """
    most = max(1, min(limits.connections, open_files() // _SHARES))
    doorkeeper = _Doorkeeper(limits, most)
    config = uvicorn.Config(
        app,
        lifespan="off",
        http=cast("type[asyncio.Protocol]", doorkeeper.protocol),
        backlog=_BACKLOG,
        limit_concurrency=most + _BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[taken]))
    task.add_done_callback(lambda _: stop.set())
    watch = asyncio.create_task(doorkeeper.watch())
    while not server.started and not task.done():  # noqa: ASYNC110 -- uvicorn has no event
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        watch.cancel()
        end_streams = getattr(getattr(app, "state", None), "end_streams", None)
        if end_streams is not None:  # no answer of theirs would end by itself
            await asyncio.to_thread(end_streams)
        server.should_exit = True
        await task
