"""Readings that open pages share: each is read at most every second, and only when asked for."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

EVERY_S = 1.0
# Without an announced change the fleet is read again all the same: devices fall silent.
AT_LEAST_EVERY_S = 5.0
_MAX_READINGS = 256


@dataclass
class _Reading:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    value: Any = None
    changes: int = -1
    at: float = float("-inf")


class Readings:
    """Reads on worker threads and shares what was read, the latest used of a bounded number.

    Args:
        changes: a number that rises when something may have changed.
        clock: monotonic seconds.
    """

    def __init__(
        self, changes: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._changes = changes
        self._clock = clock
        self._readings: OrderedDict[Hashable, _Reading] = OrderedDict()

    def __len__(self) -> int:
        """How many readings are kept."""
        return len(self._readings)

    async def get(self, key: Hashable, read: Callable[[], T], every_s: float = EVERY_S) -> T:
        """What `read` gave, not older than `every_s` seconds where something changed.

        Args:
            key: names the reading; what is read for another scope has another key.
            read: blocks; runs on a worker thread.
            every_s: how often it is read at most.
        """
        reading = self._readings.setdefault(key, _Reading())
        self._readings.move_to_end(key)
        if len(self._readings) > _MAX_READINGS:
            self._readings.popitem(last=False)
        async with reading.lock:
            now, changes = self._clock(), self._changes()
            age = now - reading.at
            at_least = max(every_s, AT_LEAST_EVERY_S)
            if age >= at_least or (age >= every_s and changes != reading.changes):
                reading.value = await asyncio.to_thread(read)
                reading.changes, reading.at = changes, self._clock()
            found: T = reading.value
            return found
