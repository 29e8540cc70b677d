"""A client's session: its subscriptions, what waits for it and what it has not acknowledged.

It outlives the connection by the expiry that the client asked for, in memory only: when the
broker ends, sessions end. That loses nothing, since state lives in the fleet's database and
every message is asked for again over HTTPS or from a device's outbox.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from fleet.broker import encoding
from fleet.broker.packets import Message, Subscription

MAX_WINDOW: Final = 1000
"""Messages in flight to one client, whatever receive maximum it names."""

_IDS: Final = 0xFFFF


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one session may hold."""

    messages: int
    bytes: int
    subscriptions: int


DEVICE_BOUNDS: Final = Bounds(messages=1000, bytes=4 << 20, subscriptions=32)
FLEET_BOUNDS: Final = Bounds(messages=50_000, bytes=256 << 20, subscriptions=1000)


class Session:
    """One session; pure, the connection asks it what to send.

    Args:
        username: the account that owns it.
        client_id: its name, unique per account.
        bounds: the oldest waiting message makes room when one is reached. What is in flight
            counts against the bytes, so that a client that acknowledges nothing gains nothing.
        clock: by which messages expire, in seconds.
    """

    def __init__(
        self,
        username: str,
        client_id: str,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.username = username
        self.client_id = client_id
        self.bounds = bounds
        self.expiry_s = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.dropped = 0
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._in_flight: dict[int, Message] = {}
        self._again: deque[int] = deque()
        self._window = MAX_WINDOW
        self._largest = 0
        self._next_id = 0

    @property
    def waiting(self) -> int:
        """How many messages wait to be sent."""
        return len(self._waiting)

    @property
    def size(self) -> int:
        """The size of all that waits or is not acknowledged."""
        return self._bytes

    def offer(self, message: Message) -> None:
        """Queue a message, with the QoS and the retain flag that the client is to see."""
        self._waiting.append(message)
        self._bytes += message.size
        while self._waiting and (
            len(self._waiting) > self.bounds.messages or self._bytes > self.bounds.bytes
        ):
            self._bytes -= self._waiting.popleft().size
            self.dropped += 1

    def resume(self, receive_maximum: int, maximum_packet: int) -> None:
        """Begin a connection: what the last one did not acknowledge is to be taken again."""
        self._window = min(receive_maximum, MAX_WINDOW)
        self._largest = maximum_packet
        self._again = deque(self._in_flight)

    def take(self) -> Iterator[bytes]:
        """Yield packets to send until the window is full or nothing waits.

        First come those, marked so, that an earlier connection did not acknowledge, then what
        waits; each oldest first. What has expired meanwhile is forgotten (3.3.2.3.3).
        """
        yield from self._repeated()
        while self._waiting and (not self._waiting[0].qos or self._room()):
            message = self._waiting.popleft()
            left_s = message.ends_at - self._clock()
            if left_s <= 0:
                self._bytes -= message.size
                continue
            packet_id = self._new_id() if message.qos else 0
            packet = encoding.publish(
                message, packet_id=packet_id, dup=False, retain=message.retain, left_s=left_s
            )
            if packet_id and len(packet) <= self._largest:
                self._in_flight[packet_id] = message
            else:
                self._bytes -= message.size
            if len(packet) > self._largest:
                self.dropped += 1
                continue
            yield packet

    def acknowledge(self, packet_id: int) -> None:
        """Forget a message that the client has acknowledged; an unknown one is no matter."""
        message = self._in_flight.pop(packet_id, None)
        if message is None:
            return
        self._bytes -= message.size
        if packet_id in self._again:
            self._again.remove(packet_id)

    def _room(self) -> bool:
        """Whether this connection's client takes one more."""
        return len(self._in_flight) - len(self._again) < self._window

    def _repeated(self) -> Iterator[bytes]:
        while self._again and self._room():
            packet_id = self._again.popleft()
            message = self._in_flight[packet_id]
            left_s = message.ends_at - self._clock()
            if left_s <= 0:
                self._bytes -= self._in_flight.pop(packet_id).size
                continue
            packet = encoding.publish(
                message, packet_id=packet_id, dup=True, retain=message.retain, left_s=left_s
            )
            if len(packet) > self._largest:
                self._bytes -= self._in_flight.pop(packet_id).size
                self.dropped += 1
                continue
            yield packet

    def _new_id(self) -> int:
        while True:
            self._next_id = self._next_id % _IDS + 1
            if self._next_id not in self._in_flight:
                return self._next_id
