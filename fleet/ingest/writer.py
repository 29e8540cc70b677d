"""Stores opened batches, many in one transaction, and says what is stored after the commit.

What the database refuses for a value's sake is looked for and set aside; while the database is not
there, batches of the bus are held and tried again, so that the broker keeps the rest.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cloud_sync.messages import Ack
from edgeml.errors import EdgemlError, RemoteError
from fleet.ingest.waiting import Message
from fleet.services import records
from fleet.services.context import Services
from fleet.services.records import SignedBatch

HOLD_S = 60.0
ACKS_S = 0.5
_PAUSE_S = (0.1, 5.0)
_LOG = logging.getLogger(__name__)
# What may be gone the next time, but for values that the database refuses.
_PASSING = (DBAPIError, PoolTimeoutError, OSError, MemoryError)
_OF_A_VALUE = (DataError, IntegrityError, ProgrammingError)


class Writer:
    """See the module.

    Args:
        services: the fleet.
        judge: opens a message again by the slower way, which says why it is refused.
        stopping: set when it shall not try again.
        hurried: whether more waits already; then acknowledgements do so a little, too, so that
            one stands for what several transactions have stored of a stream.
    """

    def __init__(
        self,
        services: Services,
        judge: Callable[[Message], SignedBatch | None],
        stopping: threading.Event,
        hurried: Callable[[], bool] = lambda: False,
    ) -> None:
        self._services = services
        self._judge = judge
        self._stopping = stopping
        self._hurried = hurried
        self._acks: dict[tuple[str, str], Ack] = {}
        self._told_at = float("-inf")

    def store(self, messages: Sequence[Message]) -> None:
        """Store what was opened, or give it up for its device to send again."""
        left, pause, until = list(messages), _PAUSE_S[0], time.monotonic() + HOLD_S
        while left := self._tried(left):
            self.acknowledge()  # what is stored need not wait for what cannot be
            if self._stopping.wait(pause) or time.monotonic() > until:
                # The devices' outboxes send it again.
                self._services.counters.add("ingest.dropped", len(left))
                break
            pause = min(2 * pause, _PAUSE_S[1])
        if not self._hurried() or time.monotonic() > self._told_at + ACKS_S:
            self.acknowledge()

    def acknowledge(self) -> None:
        """Tell devices of the bus what is stored."""
        acks, self._acks = self._acks, {}
        for ack in acks.values():
            records.publish_ack(self._services, ack)
        self._told_at = time.monotonic()

    def _tried(self, messages: list[Message]) -> list[Message]:
        """Store once; returns those of the bus that may be stored the next time."""
        if not messages:
            return []
        try:
            acks = records.keep(self._services, [m.signed for m in messages if m.signed])
        except Exception as error:  # noqa: BLE001 -- no batch may end the thread
            self._services.counters.add("ingest.faults")
            if _is_passing(error):
                _LOG.warning("%d batches could not be stored yet: %s", len(messages), error)
                return [message for message in messages if not _told(message, error)]
            if len(messages) > 1:
                # One of them may be to blame: each by itself, so that the others are stored.
                return [held for message in messages for held in self._tried([message])]
            acks = [self._alone(messages[0], error)]
        self._tell(messages, acks)
        return []

    def _tell(self, messages: Sequence[Message], acks: Sequence[Ack | None]) -> None:
        for message, ack in zip(messages, acks, strict=True):
            if ack is None:
                self._again(message)
            elif message.done:
                message.done.set_result(records.signed_ack(self._services, ack))
            else:
                self._acks[ack.device, ack.stream] = ack

    def _again(self, message: Message) -> None:
        """Store a batch whose device has another key by now, or was revoked, if it is good."""
        if isinstance(message.signed, SignedBatch):
            return
        try:
            signed = self._judge(message)
        except EdgemlError as error:
            if message.done:
                message.done.set_exception(error)
            return
        if signed:
            message.signed = signed
            self._tried([message])

    def _alone(self, message: Message, fault: Exception) -> Ack | None:
        _LOG.error("a batch of %s could not be stored", message.device, exc_info=fault)
        try:
            signed = message.signed
            if not isinstance(signed, SignedBatch):
                signed = self._judge(message)
            return self._without_the_faulty(signed, fault) if signed else None
        except Exception as error:  # noqa: BLE001 -- as above
            _told(message, error)
            return None

    def _without_the_faulty(self, signed: SignedBatch, fault: Exception) -> Ack | None:
        """Store a batch that cannot be stored, but for the records that are to blame.

        Raises:
            Exception: it is the database that is to blame; sent again it may be stored.
        """
        if _is_passing(fault):
            raise fault
        if len(signed.batch.records) <= 1:
            return records.set_aside(self._services, signed, fault)
        ack = None
        for half in records.apart(signed):
            try:
                (ack,) = records.keep(self._services, [half])
            except Exception as error:  # noqa: BLE001 -- it is looked at there
                ack = self._without_the_faulty(half, error)
        return ack


def _is_passing(fault: Exception) -> bool:
    return isinstance(fault, _PASSING) and not isinstance(fault, _OF_A_VALUE)


def _told(message: Message, fault: Exception) -> bool:
    """Tell who waits over HTTPS, and sends it again by itself; whether somebody does."""
    if message.done and not message.done.done():
        why = RemoteError("The fleet could not store the batch.", why=f"{fault}.")
        message.done.set_exception(why)
    return message.done is not None
