"""One client's socket: reads packets, asks the hub, writes answers, keeps the clock.

Nothing here waits for a client: what it does not read stays in its session, which is bounded,
and a client that does not read its acknowledgements is not read from either.
"""

import asyncio
import logging
from typing import Final, Protocol, cast

from fleet.broker import encoding
from fleet.broker.decoding import Frames, decode
from fleet.broker.packets import (
    MAX_CONNECT,
    MAX_PACKET,
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
    Unsubscribe,
)
from fleet.broker.router import Router
from fleet.broker.sessions import Session

CONNECT_S: Final = 5.0
MAX_KEEPALIVE_S: Final = 300
_LINGER_S: Final = 1.0
_WRITE_BYTES: Final = 1 << 16
_LOG = logging.getLogger(__name__)


class Hub(Protocol):
    """What a connection needs of the broker that it belongs to."""

    router: Router

    def opened(self, connection: "Connection") -> bool:
        """Note a new connection; returns whether there is room for it."""
        ...

    def introduced(self, connection: "Connection", connect: Connect) -> None:
        """Check who it is, and call `accept` or `end` in a while."""
        ...

    def wake(self, sessions: tuple[Session, ...]) -> None:
        """Have what waits in these sessions sent."""
        ...

    def lost(self, connection: "Connection") -> None:
        """Note that a connection is gone."""
        ...


class Connection(asyncio.Protocol):
    """The protocol of one connection; `session` is None until it is accepted."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(MAX_CONNECT)
        self._introduced = False
        self._paused = False
        self._ending = False
        self._keepalive_s = 0
        self._denied = False
        self._transport: asyncio.Transport | None = None
        self.session: Session | None = None
        self.will: Message | None = None
        self.deadline = self._loop.time() + CONNECT_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; a connection too many is dropped at once."""
        # uvloop's are transports in all but their class.
        self._transport = transport = cast("asyncio.Transport", transport)
        if not self._hub.opened(self):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what came, and work on the packets that are whole."""
        self._frames.feed(data)
        self._work()

    def pause_writing(self) -> None:
        """Stop sending and reading: the client does not read."""
        self._paused = True
        if self._transport is not None and self.session is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._paused = False
        if self._transport is not None and self.session is not None and not self._ending:
            self._transport.resume_reading()
            self.pump()

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell the hub, which publishes the will and keeps the session."""
        self._ending = True
        self._hub.lost(self)

    @property
    def open(self) -> bool:
        """Whether packets may still be exchanged."""
        return not self._ending and self._transport is not None

    def accept(self, session: Session, connect: Connect, *, present: bool) -> None:
        """Let the client in: CONNACK, then what its session holds."""
        assert self._transport is not None
        self.session, self.will = session, connect.will
        self._frames.limit = MAX_PACKET
        asked = connect.keepalive_s
        self._keepalive_s = asked if 0 < asked <= MAX_KEEPALIVE_S else MAX_KEEPALIVE_S
        self._rewind()
        self._transport.write(
            encoding.connack(
                Reason.SUCCESS,
                session_present=present,
                expiry_s=session.expiry_s,
                keepalive_s=self._keepalive_s if self._keepalive_s != asked else None,
                assigned=session.client_id if not connect.client_id else "",
            )
        )
        session.resume(connect.receive_maximum, connect.maximum_packet)
        self.pump()
        if not self._paused:
            self._transport.resume_reading()
        self._work()

    def pump(self) -> None:
        """Send what waits in the session, as far as the client reads."""
        if self.session is None or self._transport is None or self._blocked():
            return
        chunk = bytearray()
        for packet in self.session.take():
            chunk += packet
            if len(chunk) >= _WRITE_BYTES:
                self._transport.write(bytes(chunk))
                chunk.clear()
                if self._blocked():
                    return
        if chunk:
            self._transport.write(bytes(chunk))

    def end(self, reason: Reason | None) -> None:
        """Say why, where there is something to say, and close; `expired` aborts what lingers."""
        if self._ending or self._transport is None:
            return
        self._ending = True
        if reason is not None:
            accepted = self.session is not None
            self._transport.write(
                encoding.disconnect(reason) if accepted else encoding.connack(reason)
            )
        self._transport.close()
        self.deadline = self._loop.time() + _LINGER_S

    def expired(self) -> None:
        """Act on a deadline that has passed: nothing came, or the goodbye was not read."""
        if self._transport is not None and (self._ending or self.session is None):
            self._ending = True
            self._transport.abort()
        self.end(Reason.KEEP_ALIVE_TIMEOUT)

    def _blocked(self) -> bool:
        return self._paused or self._ending

    def _rewind(self) -> None:
        self.deadline = self._loop.time() + self._keepalive_s * 1.5

    def _work(self) -> None:
        woken: dict[Session, None] = {}
        try:
            for first, body in self._frames:
                packet = decode(first, body)
                if self.session is None:
                    self._introduce(packet)
                    break
                self._rewind()
                woken |= dict.fromkeys(self._handle(packet, self.session))
                if self._ending:
                    break
        except PacketError as error:
            who = self.session.username if self.session else "a stranger"
            _LOG.info("%s broke the protocol: %s", who, error)
            self.end(error.reason)
        self._hub.wake(tuple(woken))

    def _introduce(self, packet: Packet) -> None:
        if self._introduced or not isinstance(packet, Connect):
            raise PacketError(Reason.PROTOCOL_ERROR, "the first packet is not CONNECT")
        assert self._transport is not None
        self._introduced = True
        self._transport.pause_reading()
        self._hub.introduced(self, packet)

    def _handle(self, packet: Packet, session: Session) -> tuple[Session, ...]:
        """Act on a packet; returns the sessions that have something to send now."""
        match packet:
            case Publish(packet_id=packet_id, message=message):
                return self._published(packet_id, message, session)
            case Puback(packet_id):
                session.acknowledge(packet_id)
                return (session,)
            case Subscribe(packet_id, subscriptions):
                reasons = self._hub.router.subscribe(session, subscriptions)
                self._write(encoding.suback(packet_id, reasons))
                return (session,)
            case Unsubscribe(packet_id, filters):
                reasons = self._hub.router.unsubscribe(session, filters)
                self._write(encoding.unsuback(packet_id, reasons))
            case Pingreq():
                self._write(encoding.PINGRESP)
            case Disconnect(reason, expiry_s):
                self._goodbye(reason, expiry_s, session)
            case Connect():
                raise PacketError(Reason.PROTOCOL_ERROR, "a second CONNECT")
        return ()

    def _published(self, packet_id: int, message: Message, session: Session) -> tuple[Session, ...]:
        answer = self._hub.router.publish(session, message)
        if answer.reason is not Reason.SUCCESS and not self._denied:
            self._denied = True  # once per connection: a log must not be filled from outside
            _LOG.warning(
                "%s may not publish to %r: %s", session.username, message.topic, answer.reason.name
            )
        if packet_id:
            self._write(encoding.puback(packet_id, answer.reason))
        return answer.woken

    def _goodbye(self, reason: int, expiry_s: int | None, session: Session) -> None:
        if reason == 0:
            self.will = None
        if expiry_s is not None:
            if session.expiry_s == 0 and expiry_s:
                raise PacketError(Reason.PROTOCOL_ERROR, "an expiry where there was none")
            session.expiry_s = min(session.expiry_s, expiry_s)
        self.end(None)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)
