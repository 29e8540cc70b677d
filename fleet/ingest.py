"""Takes what devices send: from the bus and over HTTPS, through one queue and one writer.

A thread gathers what waits into one transaction and acknowledges after its commit; signatures
are verified on every core, for that runs outside the interpreter's lock. The queue is bounded:
when the database cannot follow, the bus is held back for a moment, then messages are dropped and
counted; the devices' outboxes send them again.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cloud_sync.messages import TOPIC_ROOT, Presence, Up, decode
from cloud_sync.trust import PublicKey
from edgeml.errors import EdgemlError, RemoteError
from fleet.services import desired, records, reported
from fleet.services.context import Services
from fleet.services.records import SignedBatch

MAX_WAITING = 2000
MAX_WAITING_BYTES = 64 << 20
MAX_TOGETHER = 200
MAX_BYTES_TOGETHER = 8 << 20
HOLD_BACK_S = 1.0
HTTP_PATIENCE_S = 30.0
_KEY_S = 5.0
_WORKERS = min(os.cpu_count() or 1, 8)
_MAX_KEYS = 100_000
_LOG = logging.getLogger(__name__)
T = TypeVar("T")
# What may be gone the next time, but for values that the database refuses.
_PASSING = (DBAPIError, PoolTimeoutError, OSError, MemoryError)
_OF_A_VALUE = (DataError, IntegrityError, ProgrammingError)
_BATCHES = frozenset({Up.STATE, Up.TELEMETRY, Up.EVIDENCE, Up.SECURITY, Up.RESULT})


@dataclass(frozen=True)
class Address:
    """Who a message on the bus says it is from, and what it is."""

    device: str
    kind: Up


@dataclass(frozen=True)
class _Message:
    device: str
    kind: Up
    payload: bytes
    signed: SignedBatch | None = None
    done: "Future[bytes] | None" = None


def subscriptions() -> list[str]:
    """The topic filters of everything that devices send."""
    return [f"{TOPIC_ROOT}/+/{name}" for name in Up]


def parse_topic(topic: str) -> Address | None:
    """Read a topic that devices publish on; None for any other.

    >>> parse_topic("edgeml/v1/cam-1/up/state")
    Address(device='cam-1', kind=<Up.STATE: 'up/state'>)
    """
    head, _, rest = topic.removeprefix(f"{TOPIC_ROOT}/").partition("/")
    if not topic.startswith(f"{TOPIC_ROOT}/") or not head or rest not in set(Up):
        return None
    return Address(device=head, kind=Up(rest))


class Ingest:
    """See the module.

    Args:
        services: the fleet.
        max_waiting: how many messages may wait.
    """

    def __init__(self, services: Services, *, max_waiting: int = MAX_WAITING) -> None:
        self._services = services
        self._queue = _Waiting(max_waiting)
        self._keys: dict[str, tuple[float, PublicKey]] = {}
        self._verifiers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="verify")
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        services.replaced.tell(self._forget)

    def start(self) -> None:
        """Begin to store."""
        self._thread.start()

    def stop(self) -> None:
        """Store what waits, and end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._verifiers.shutdown()

    def on_message(self, topic: str, payload: bytes) -> None:
        """Take a message of the bus; called on the bus client's thread."""
        address = parse_topic(topic)
        if address is None:
            self._services.counters.add("ingest.malformed")
            return
        try:
            self._queue.put(_Message(address.device, address.kind, payload), timeout=HOLD_BACK_S)
        except queue.Full:
            self._services.counters.add("ingest.dropped")

    def send(self, device: str, envelope: bytes) -> bytes:
        """Store a batch that came over HTTPS; returns the signed ack, after the commit.

        Raises:
            TrustError: the device did not sign it.
            RemoteError: it cannot be read, or the database does not follow.
        """
        signed = self._open(device, envelope)
        done: Future[bytes] = Future()
        busy = RemoteError("The fleet is busy.", why="Its queue is full.", fix="Send it later.")
        try:
            self._queue.put(
                _Message(device, Up.TELEMETRY, envelope, signed, done), timeout=HOLD_BACK_S
            )
            return done.result(HTTP_PATIENCE_S)
        except (queue.Full, TimeoutError):
            raise busy from None

    def _run(self) -> None:
        running = True
        while running:
            waiting = [self._queue.get()]
            size = _size(waiting[0])
            while len(waiting) < MAX_TOGETHER and size < MAX_BYTES_TOGETHER:
                try:
                    waiting.append(self._queue.get_nowait())
                except queue.Empty:
                    break
                size += _size(waiting[-1])
            running = None not in waiting
            self._handle([message for message in waiting if message is not None])

    def _handle(self, messages: list[_Message]) -> None:
        batches: list[tuple[_Message, SignedBatch]] = []
        for message in self._verified(messages):
            if message.signed:
                batches.append((message, message.signed))
            elif message.kind is Up.HELLO:
                self._surviving(message, self._hello)
            elif message.kind is Up.PRESENCE:
                self._surviving(message, self._presence)
        self._store(batches)

    def _verified(self, messages: list[_Message]) -> list[_Message]:
        """The messages in their order, batches with what was verified of them."""
        each = max(1, -(-len(messages) // _WORKERS))
        parts = [messages[at : at + each] for at in range(0, len(messages), each)]
        if len(parts) < 2:  # noqa: PLR2004 -- nothing to share out
            return self._verify(messages)
        return [message for part in self._verifiers.map(self._verify, parts) for message in part]

    def _verify(self, messages: list[_Message]) -> list[_Message]:
        return [
            self._surviving(message, self._signed) or message
            if message.kind in _BATCHES and message.signed is None
            else message
            for message in messages
        ]

    def _signed(self, message: _Message) -> _Message:
        return replace(message, signed=self._open(message.device, message.payload))

    def _surviving(self, message: _Message, handle: Callable[[_Message], T]) -> T | None:
        """Handle a message; None where it could not be, which is counted."""
        try:
            return handle(message)
        except EdgemlError as error:
            # What a device sends wrong is its own loss: counted, and never ours.
            self._services.counters.add("ingest.refused")
            _LOG.info("refused %s of %s: %s", message.kind, message.device, error)
        except Exception:  # noqa: BLE001 -- no message may end the thread
            self._services.counters.add("ingest.faults")
            _LOG.exception("%s of %s could not be stored", message.kind, message.device)
        return None

    def _store(self, batches: list[tuple[_Message, SignedBatch]]) -> None:
        if not batches:
            return
        try:
            acks = records.store(self._services, [signed for _, signed in batches])
        except Exception as error:  # noqa: BLE001 -- no batch may end the thread
            self._services.counters.add("ingest.faults")
            if len(batches) > 1:
                # One of them may be to blame: each by itself, so that the others are stored.
                for batch in batches:
                    self._store([batch])
                return
            message, signed = batches[0]
            _LOG.exception("a batch of %s could not be stored", message.device)
            try:
                acks = [self._without_the_faulty(signed, error)]
            except Exception as fault:  # noqa: BLE001 -- as above
                if message.done:
                    message.done.set_exception(
                        RemoteError("The fleet could not store the batch.", why=f"{fault}.")
                    )
                return
        told: set[bytes] = set()
        for (message, _), ack in zip(batches, acks, strict=True):
            if message.done:
                message.done.set_result(ack)
            elif ack not in told:
                told.add(ack)
                records.publish_ack(self._services, message.device, ack)

    def _without_the_faulty(self, signed: SignedBatch, fault: Exception) -> bytes:
        """Store a batch that cannot be stored, but for the records that are to blame.

        Raises:
            Exception: it is the database that is to blame; sent again it may be stored.
        """
        if isinstance(fault, _PASSING) and not isinstance(fault, _OF_A_VALUE):
            raise fault
        if len(signed.batch.records) <= 1:
            return records.set_aside(self._services, signed, fault)
        ack = b""
        for half in records.apart(signed):
            try:
                (ack,) = records.store(self._services, [half])
            except Exception as error:  # noqa: BLE001 -- it is looked at there
                ack = self._without_the_faulty(half, error)
        return ack

    def _open(self, device: str, envelope: bytes) -> SignedBatch:
        """Verify a batch."""

        def newer() -> PublicKey:
            self._forget(device)
            return self._key(device)

        return records.verify(self._services, device, envelope, self._key(device), newer)

    def _hello(self, message: _Message) -> None:
        answer = reported.hello(self._services, message.device, message.payload)
        if answer is not None:
            desired.publish(self._services, {message.device: answer})

    def _presence(self, message: _Message) -> None:
        online = decode(message.payload, Presence).online
        reported.set_presence(self._services, message.device, online=online)

    def _key(self, device: str) -> PublicKey:
        """A device's key, asked for again after some seconds: it may be revoked or replaced."""
        now = time.monotonic()
        known = self._keys.get(device)
        if known is None or now - known[0] > _KEY_S:
            if len(self._keys) > _MAX_KEYS:
                self._keys.clear()
            known = (now, reported.device_key(self._services, device))
            self._keys[device] = known
        return known[1]

    def _forget(self, device: str) -> None:
        self._keys.pop(device, None)


class _Waiting(queue.Queue["_Message | None"]):
    """A queue that is full at so many messages, and at so many bytes of them."""

    def __init__(self, messages: int) -> None:
        self._least = MAX_WAITING_BYTES // messages
        self._weight = 0
        super().__init__(maxsize=MAX_WAITING_BYTES)

    def _qsize(self) -> int:
        return self._weight

    def _put(self, item: _Message | None) -> None:
        super()._put(item)
        self._weight += max(self._least, _size(item))

    def _get(self) -> _Message | None:
        item = super()._get()
        self._weight -= max(self._least, _size(item))
        return item


def _size(message: _Message | None) -> int:
    return len(message.payload) if message else 0
