"""The embedded broker as a whole: its socket, its clients, its clock.

It runs in the event loop of `edgeml fleet up`, on loopback only and without TLS; where packets
can leave the machine, a broker with TLS takes its place (docs/adr/0002-embedded-broker.md, which
also has the measurements and what it does not do).
"""

import asyncio
import logging
from typing import Final

from cloud_sync.address import is_loopback
from edgeml.errors import UserError
from fleet.broker.access import may_be_named, may_use
from fleet.broker.connection import Connection
from fleet.broker.credentials import Credentials
from fleet.broker.packets import Connect, Reason
from fleet.broker.router import Router
from fleet.broker.sessions import Session
from fleet.broker.topics import valid_topic

MAX_CONNECTIONS: Final = 5000
MAX_STRANGERS: Final = 1000
"""Connections that have not said who they are; each has five seconds for it."""

_SWEEP_S: Final = 0.5
_STOP_S: Final = 1.0
_LOG = logging.getLogger(__name__)


class EmbeddedBroker:
    """A broker that listens; made by `start`.

    Attributes:
        url: where clients reach it, `mqtt://127.0.0.1:1883`.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.url = ""
        self.router = Router()
        self._credentials = credentials
        self._connections: set[Connection] = set()
        self._links: dict[Session, Connection] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def connected(self) -> int:
        """How many clients are connected and accepted."""
        return len(self._links)

    async def stop(self) -> None:
        """Say goodbye to every client, free the port and return; a second call does nothing."""
        if self._server is None or self._sweeper is None:
            return
        server, self._server = self._server, None
        server.close()
        self._sweeper.cancel()
        for connection in tuple(self._connections):
            connection.will = None  # the clients are well; it is the broker that goes
            connection.end(Reason.SERVER_SHUTTING_DOWN)
        end = self._loop.time() + _STOP_S
        while self._connections and self._loop.time() < end:  # noqa: ASYNC110 -- no event for it
            await asyncio.sleep(0.01)
        for connection in tuple(self._connections):
            connection.expired()
        await asyncio.gather(self._sweeper, *self._checks, return_exceptions=True)
        await server.wait_closed()

    def disconnect(self, username: str) -> None:
        """Cut an account's connections and end its sessions, as when it is revoked.

        May be called from any thread.
        """
        self._loop.call_soon_threadsafe(self._disconnect, username)

    def opened(self, connection: Connection) -> bool:
        """Note a new connection; returns whether there is room for it."""
        strangers = len(self._connections) - len(self._links)
        self._connections.add(connection)
        return len(self._connections) <= MAX_CONNECTIONS and strangers < MAX_STRANGERS

    def introduced(self, connection: Connection, connect: Connect) -> None:
        """Check who it is, in a thread, then accept or refuse it."""
        task = self._loop.create_task(self._check(connection, connect))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    def wake(self, sessions: tuple[Session, ...]) -> None:
        """Send what waits in the sessions that are connected."""
        for session in sessions:
            if connection := self._links.get(session):
                connection.pump()

    def lost(self, connection: Connection) -> None:
        """Forget a connection; its will is published unless it said goodbye."""
        self._connections.discard(connection)
        self._release(connection)

    async def listen(self, host: str, port: int) -> None:
        """Bind and begin to serve; `start` calls it."""
        self._server = await self._loop.create_server(
            lambda: Connection(self), host, port, backlog=1024
        )
        bound = self._server.sockets[0].getsockname()[1]
        self.url = f"mqtt://{f'[{host}]' if ':' in host else host}:{bound}"
        self._sweeper = self._loop.create_task(self._sweep())

    async def _check(self, connection: Connection, connect: Connect) -> None:
        reason = await self._judge(connect)
        if not connection.open:
            return
        if reason is not Reason.SUCCESS:
            _LOG.warning("%r was refused at the broker: %s", connect.username, reason.name)
            connection.end(reason)
            return
        client_id = connect.client_id or connect.username
        session = self.router.session(connect.username, client_id)
        if session is not None and (old := self._links.get(session)):
            self._release(old)
            old.end(Reason.SESSION_TAKEN_OVER)
        session, present = self.router.attach(connect, client_id)
        self._links[session] = connection
        connection.accept(session, connect, present=present)

    async def _judge(self, connect: Connect) -> Reason:
        """Return SUCCESS or why this client may not connect."""
        username = connect.username
        client_id = connect.client_id or username
        try:
            known = bool(username) and await asyncio.to_thread(
                self._credentials.check, username, connect.password
            )
        except Exception:  # noqa: BLE001 -- whatever the database threw, the broker lives
            _LOG.exception("the credentials of %r could not be checked", username)
            return Reason.UNAVAILABLE
        if not known:
            return Reason.BAD_CREDENTIALS
        if not may_be_named(username, client_id):
            return Reason.CLIENT_ID_INVALID
        will = connect.will
        if will is not None and not (valid_topic(will.topic) and may_use(username, will.topic)):
            return Reason.NOT_AUTHORIZED
        return Reason.SUCCESS

    def _release(self, connection: Connection) -> None:
        """Part a connection from its session and publish its will."""
        session, will = connection.session, connection.will
        if session is None or self._links.get(session) is not connection:
            return
        del self._links[session]
        connection.will = None
        self.router.detach(session, self._loop.time())
        if will is not None:
            self.wake(self.router.publish(session, will).woken)

    def _disconnect(self, username: str) -> None:
        for session in self.router.of(username):
            if connection := self._links.get(session):
                self._release(connection)
                connection.end(Reason.ADMINISTRATIVE)
            self.router.forget(session)

    async def _sweep(self) -> None:
        """End what is overdue: connections that are silent, sessions that nobody came back for."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = self._loop.time()
            for connection in tuple(self._connections):
                if connection.deadline <= now:
                    connection.expired()
            self.router.expire(now)


async def start(host: str, port: int, credentials: Credentials) -> EmbeddedBroker:
    """Start the broker in the running event loop.

    Args:
        host: a loopback address.
        port: where to listen; 0 takes any free port, `url` says which.
        credentials: asked at each connect.

    Raises:
        UserError: `host` is not loopback, or the port is taken.
    """
    host = "127.0.0.1" if host == "localhost" else host
    if not is_loopback(host):
        raise UserError(
            f"The embedded broker does not listen on {host}.",
            why="It speaks without TLS, so nothing may leave the machine.",
            fix="Use 127.0.0.1, or run a broker with TLS, such as Mosquitto.",
        )
    broker = EmbeddedBroker(credentials)
    try:
        await broker.listen(host, port)
    except OSError as error:
        raise UserError(
            f"The embedded broker cannot listen on {host}:{port}.",
            why=f"{error.strerror or error}.",
            fix="Choose another port.",
        ) from None
    return broker
