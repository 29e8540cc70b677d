"""Takes what devices send: from the bus and over HTTPS, through one queue and one writer.

A thread gathers what waits into one transaction and acknowledges after its commit. The queue
is bounded: when the database cannot follow, the bus is held back for a moment, then messages are
dropped and counted; the devices' outboxes send them again.
"""

import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

from cloud_sync.messages import TOPIC_ROOT, Presence, Up, decode
from cloud_sync.trust import PublicKey
from edgeml.errors import EdgemlError, RemoteError
from fleet.services import desired, records, reported
from fleet.services.context import Services
from fleet.services.records import SignedBatch

MAX_WAITING = 2000
MAX_TOGETHER = 200
HOLD_BACK_S = 1.0
HTTP_PATIENCE_S = 30.0
_KEY_S = 5.0
_MAX_KEYS = 100_000
_LOG = logging.getLogger(__name__)
_BATCHES = frozenset({Up.STATE, Up.TELEMETRY, Up.EVIDENCE, Up.SECURITY})


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
        self._queue: queue.Queue[_Message | None] = queue.Queue(maxsize=max_waiting)
        self._keys: dict[str, tuple[float, PublicKey]] = {}
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
            while len(waiting) < MAX_TOGETHER:
                try:
                    waiting.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            running = None not in waiting
            self._handle([message for message in waiting if message is not None])

    def _handle(self, messages: list[_Message]) -> None:
        batches: list[tuple[_Message, SignedBatch]] = []
        for message in messages:
            try:
                if message.kind in _BATCHES:
                    signed = message.signed or self._open(message.device, message.payload)
                    batches.append((message, signed))
                elif message.kind is Up.HELLO:
                    self._hello(message)
                else:
                    self._presence(message)
            except EdgemlError as error:
                # What a device sends wrong is its own loss: counted, and never ours.
                self._services.counters.add("ingest.refused")
                _LOG.info("refused %s of %s: %s", message.kind, message.device, error)
            except Exception:  # noqa: BLE001 -- no message may end the thread
                self._services.counters.add("ingest.faults")
                _LOG.exception("%s of %s could not be stored", message.kind, message.device)
        self._store(batches)

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
            message = batches[0][0]
            _LOG.exception("a batch of %s could not be stored", message.device)
            if message.done:
                message.done.set_exception(
                    RemoteError("The fleet could not store the batch.", why=f"{error}.")
                )
            return
        told: set[bytes] = set()
        for (message, _), ack in zip(batches, acks, strict=True):
            if message.done:
                message.done.set_result(ack)
            elif ack not in told:
                told.add(ack)
                records.publish_ack(self._services, message.device, ack)

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
