"""What waits to be opened: bounded in messages, and in bytes of them.

A transaction costs about the same for one message as for twenty. So what comes soon after a small
group was taken waits a moment for more; what comes after a pause is taken at once, and so is the
rest of a stream that filled the groups before.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import msgspec

from cloud_sync.messages import Up
from fleet.services.heeding import OpenedBatch
from fleet.services.records import SignedBatch
from fleet.services.reported import Heard, Seen

RECEIVE_MAXIMUM = 2000
MAX_WAITING = 5000  # what the broker gives, the same again after a lost connection, and HTTPS
MAX_WAITING_BYTES = 64 << 20
MAX_TOGETHER = 500
ENOUGH = 200
GATHER_S = 0.1
MAX_BYTES_TOGETHER = 2 << 20


class Message(msgspec.Struct, eq=False):
    """One message of a device.

    `signed` and `told` are what was verified of a batch, and of a hello or presence.
    `acknowledge` tells the broker that it need not keep it any more; `done` is set where somebody
    waits for the answer, over HTTPS.
    """

    device: str
    kind: Up
    payload: bytes
    signed: SignedBatch | OpenedBatch | None = None
    told: Heard | Seen | None = None
    done: "Future[bytes] | None" = None
    acknowledge: Callable[[], None] | None = None

    def over(self) -> None:
        """Let the broker forget it."""
        if self.acknowledge:
            self.acknowledge()

    def failed(self, fault: Exception) -> None:
        """Tell who waits for the answer that there is none."""
        if self.done and not self.done.done():
            self.done.set_exception(fault)


class Full(Exception):  # noqa: N818 -- an answer more than a fault
    """There is no room for a message."""


class Waiting:
    """Messages on their way from those who receive to the one who takes what waits in groups."""

    def __init__(self, messages: int = MAX_WAITING) -> None:
        self._most = messages
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._ended = False
        self._taken_at = -GATHER_S
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message, timeout_s: float) -> None:
        """Add a message, waiting for room if there is none.

        Who waits for the answer can be told to come again, and leaves most of the room to the bus.

        Raises:
            Full: there was none in time.
        """
        size = len(message.payload)
        with self._lock:
            most = self._most if message.done is None else max(1, self._most // 5)
            if not self._emptied.wait_for(lambda: self._has_room(size, most), timeout_s):
                raise Full
            self._messages.append(message)
            self._bytes += size
            if len(self._messages) == 1 or self._enough():
                self._filled.notify()

    def end(self) -> None:
        """Have `group` give what waits, and then nothing."""
        with self._lock:
            self._ended = True
            self._filled.notify()

    def group(self) -> list[Message]:
        """What waits, at most what goes into one transaction; empty at the end alone."""
        with self._lock:
            self._filled.wait_for(lambda: self._messages or self._ended)
            soon = self._taken_at + GATHER_S - time.monotonic()
            if not self._filled.wait_for(self._enough, soon):
                self._taken_at = time.monotonic()
            found: list[Message] = []
            size = 0
            while self._messages and len(found) < MAX_TOGETHER and size < MAX_BYTES_TOGETHER:
                found.append(self._messages.popleft())
                size += len(found[-1].payload)
            self._bytes -= size
            self._emptied.notify_all()
        return found

    def _has_room(self, size: int, most: int) -> bool:
        return len(self._messages) < most and self._bytes + size <= MAX_WAITING_BYTES

    def _enough(self) -> bool:
        """Whether to wait for more would be of no use."""
        many = len(self._messages) >= min(ENOUGH, self._most)
        return many or self._bytes >= MAX_BYTES_TOGETHER or self._ended
