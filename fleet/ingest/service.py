"""The two threads of ingest: one opens what waits, the other stores what is opened."""

import logging
import queue
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from cloud_sync.messages import Presence, Up, decode
from cloud_sync.trust import PublicKey
from edgeml.errors import EdgemlError, RemoteError
from fleet.ingest import samples
from fleet.ingest.keys import Keys
from fleet.ingest.topics import parse_topic
from fleet.ingest.waiting import MAX_WAITING, Full, Message, Waiting
from fleet.ingest.writer import Writer
from fleet.opening import Asked, Openers, ReadBatch, opened
from fleet.services import desired, records, reported
from fleet.services.context import Services
from fleet.services.heeding import OpenedBatch
from fleet.services.records import SignedBatch
from fleet.services.reported import Heard, Seen

HOLD_BACK_S = 1.0
HTTP_PATIENCE_S = 30.0
HELLOS_TOGETHER = 100
_GROUPS_AHEAD = 1
_BATCHES = frozenset({Up.STATE, Up.TELEMETRY, Up.EVIDENCE, Up.SECURITY, Up.RESULT})
_OF_THEMSELVES = frozenset({Up.HELLO, Up.PRESENCE})
_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class Ingest:
    """See the package.

    Args:
        services: the fleet.
        max_waiting: how many messages may wait.
        processes: how many may open batches; one less than there are cores, if not given.
    """

    def __init__(
        self,
        services: Services,
        *,
        max_waiting: int = MAX_WAITING,
        processes: int | None = None,
    ) -> None:
        self._services = services
        self._waiting = Waiting(max_waiting)
        self._opened: queue.Queue[list[Message] | None] = queue.Queue(_GROUPS_AHEAD)
        self._keys = Keys(services)
        self._openers = Openers(processes)
        self._stopping = threading.Event()
        self._writer = Writer(services, self._judged, self._stopping, self._has_more)
        self._threads = [
            threading.Thread(target=run, name=f"ingest {run.__name__[1:]}", daemon=True)
            for run in (self._open_all, self._store_all)
        ]
        services.replaced.tell(self._keys.forget)

    @property
    def waiting(self) -> int:
        """How many messages wait to be opened."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to store."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Store what waits, and end; what the database does not take now is sent again."""
        self._stopping.set()
        if self._threads[0].is_alive():
            self._waiting.end()
            for thread in self._threads:
                thread.join()
        self._openers.close()

    def on_message(self, topic: str, payload: bytes) -> None:
        """Take a message of the bus that need not be acknowledged."""
        self.on_delivery(topic, payload, None)

    def on_delivery(
        self, topic: str, payload: bytes, acknowledge: Callable[[], None] | None
    ) -> None:
        """Take a message of the bus; called on the bus client's thread.

        Args:
            topic: where it came.
            payload: what came.
            acknowledge: called once it is stored, or will never be.
        """
        address = parse_topic(topic)
        if address is None:
            self._services.counters.add("ingest.malformed")
            if acknowledge:
                acknowledge()
            return
        message = Message(address.device, address.kind, payload, acknowledge=acknowledge)
        try:
            self._waiting.put(message, HOLD_BACK_S)
        except Full:
            self._services.counters.add("ingest.dropped")
            message.over()

    def send(self, device: str, envelope: bytes) -> bytes:
        """Store a batch that came over HTTPS; returns the signed ack, after the commit.

        Raises:
            TrustError: the device did not sign it.
            RemoteError: it cannot be read, or the database does not follow.
        """
        done: Future[bytes] = Future()
        message = Message(device, Up.TELEMETRY, envelope, done=done)
        (read,) = self._read([message], lambda asked: [opened(one) for one in asked])
        message.signed = read or self._judged(message)
        try:
            self._waiting.put(message, HOLD_BACK_S)
            return done.result(HTTP_PATIENCE_S)
        except (Full, TimeoutError):
            raise busy() from None

    def hello(self, device: str, envelope: bytes) -> "Future[bytes]":
        """Take a hello that came over HTTPS.

        Returns:
            The envelope of its device's desired state, empty if there is none, once the hello is
            stored; or why it is not.

        Raises:
            RemoteError: the database does not follow.
        """
        done: Future[bytes] = Future()
        done.set_running_or_notify_cancel()  # whoever does not wait any more stops nothing
        try:
            self._waiting.put(Message(device, Up.HELLO, envelope, done=done), HOLD_BACK_S)
        except Full:
            raise busy() from None
        return done

    def _open_all(self) -> None:
        while group := self._waiting.group():
            self._open(group)
            self._opened.put(group)
        self._opened.put(None)

    def _has_more(self) -> bool:
        return len(self._waiting) > 0 or not self._opened.empty()

    def _store_all(self) -> None:
        while (group := self._opened.get()) is not None:
            try:
                self._handle(group)
            except Exception:  # noqa: BLE001 -- no group may end the thread
                # What was not acknowledged comes again, and what was stored is known again.
                self._services.counters.add("ingest.faults")
                _LOG.exception("%d messages were not seen through", len(group))
        self._writer.acknowledge()

    def _open(self, messages: list[Message]) -> None:
        """Give the batches among messages what was verified of them."""
        batches = [one for one in messages if one.kind in _BATCHES and one.signed is None]
        try:
            read = self._read(batches, self._openers.open)
        except Exception:  # noqa: BLE001 -- no group may end the thread
            # The database does not tell the keys; each is asked for again by itself.
            _LOG.exception("devices' keys could not be looked up")
            return
        for one, opened_batch in zip(batches, read, strict=True):
            one.signed = opened_batch

    def _read(
        self,
        messages: Sequence[Message],
        open_all: Callable[[Sequence[Asked]], Sequence[ReadBatch | None]],
    ) -> list[OpenedBatch | None]:
        """Open batches the quick way; None for those that have to be judged."""
        keys = self._keys.of({message.device for message in messages})
        asked = [
            Asked(one.device, keys[one.device].id, keys[one.device].raw, one.payload)
            for one in messages
            if one.device in keys
        ]
        read = iter(open_all(asked))
        found = [next(read) if one.device in keys else None for one in messages]
        return [
            OpenedBatch(batch, one.payload) if batch else None
            for one, batch in zip(messages, found, strict=True)
        ]

    def _handle(self, messages: list[Message]) -> None:
        batches = [one for one in messages if one.kind in _BATCHES]
        parting = _parting(messages, {one.device for one in batches})
        said = (one for one in messages if one.kind in _OF_THEMSELVES)
        self._hear([one for one in said if one not in parting])
        for message in batches:
            message.signed = message.signed or self._surviving(message, self._judged)
        self._writer.store([message for message in batches if message.signed])
        if parting:
            self._hear(parting)
        for message in messages:
            self._surviving(message, Message.over)

    def _hear(self, messages: Sequence[Message]) -> None:
        """Take what devices say of themselves, many in one transaction."""
        devices = sorted({one.device for one in messages if one.kind is Up.HELLO})
        keys: Mapping[str, PublicKey] = {}
        try:
            keys = reported.device_keys(self._services, devices) if devices else {}
        except Exception:  # noqa: BLE001 -- no group may end the thread
            _LOG.exception("devices' keys could not be looked up")
        for message in messages:
            message.told = self._surviving(message, partial(self._told, keys))
        told = [message for message in messages if message.told]
        for first in range(0, len(told), HELLOS_TOGETHER):
            together = told[first : first + HELLOS_TOGETHER]
            try:
                self._take(together)
            except Exception as error:  # noqa: BLE001 -- as above
                # One of them may be to blame: each by itself, so that the others are stored.
                _LOG.info("%d hellos could not be stored together: %s", len(together), error)
                for message in together:
                    self._surviving(message, lambda one: self._take([one]))

    def _told(self, keys: Mapping[str, PublicKey], message: Message) -> Heard | Seen:
        device, payload = message.device, message.payload
        if message.kind is Up.PRESENCE:
            return Seen(device, decode(payload, Presence).online)
        return reported.hear(self._services, device, payload, keys.get(device))

    def _take(self, messages: Sequence[Message]) -> None:
        """Store what devices say of themselves in one transaction, and answer them."""
        answers = reported.take(self._services, [one.told for one in messages if one.told])
        for message, answer in zip(messages, answers, strict=True):
            if message.done:
                message.done.set_result(answer or b"")
            elif answer:
                desired.publish(self._services, {message.device: answer})

    def _surviving(self, message: Message, handle: Callable[[Message], T]) -> T | None:
        """Handle a message; None where it could not be, which is counted."""
        try:
            return handle(message)
        except EdgemlError as error:
            # What a device sends wrong is its own loss: counted, and never ours.
            self._services.counters.add("ingest.refused")
            _LOG.info("refused %s of %s: %s", message.kind, message.device, error)
            if isinstance(error, RemoteError) and not message.done:
                self._sampled(message, error)
            message.failed(error)
        except Exception as error:  # noqa: BLE001 -- no message may end the thread
            self._services.counters.add("ingest.faults")
            _LOG.exception("%s of %s could not be stored", message.kind, message.device)
            message.failed(error)
        return None

    def _sampled(self, message: Message, error: EdgemlError) -> None:
        try:
            samples.keep(self._services, message.device, str(message.kind), message.payload, error)
        except Exception:  # noqa: BLE001 -- as above
            _LOG.exception("a sample of what was refused could not be kept")

    def _judged(self, message: Message) -> SignedBatch:
        """Verify a batch, by the way that says why not."""

        def newer() -> PublicKey:
            self._keys.forget(message.device)
            return self._key(message.device)

        device, key = message.device, self._key(message.device)
        return records.verify(self._services, device, message.payload, key, newer)

    def _key(self, device: str) -> PublicKey:
        """A device's key.

        Raises:
            TrustError: it is not enrolled, or revoked.
        """
        found = self._keys.of([device]).get(device)
        return found.key if found else reported.device_key(self._services, device)


def _parting(messages: Sequence[Message], senders: Collection[str]) -> list[Message]:
    """Presence that is the last word of a device with batches, which say that it is there."""
    last = {one.device: one for one in messages}
    return [one for name, one in last.items() if one.kind is Up.PRESENCE and name in senders]


def busy() -> RemoteError:
    """What is answered while the database does not follow."""
    return RemoteError("The fleet is busy.", why="Its queue is full.", fix="Send it later.")
