"""One reading of the fleet for all open pages, at most every second and only when asked for."""

import asyncio
import time
from collections.abc import Callable

from fleet.console.reader import Reader
from fleet.console.view import Overview, overview

EVERY_S = 1.0
# Without an announced change the fleet is read again all the same: devices fall silent.
AT_LEAST_EVERY_S = 5.0


def read(reader: Reader) -> Overview:
    """Read everything that the overview shows; blocks."""
    rollouts = [(info, reader.explain(info["id"])) for info in reader.rollouts()]
    return overview(
        health=reader.health(),
        devices=reader.devices(),
        rollouts=rollouts,
        releases=reader.releases(),
        events=reader.events(),
        now=reader.now(),
    )


class Feed:
    """Reads on a worker thread and shares what it read.

    Args:
        reader: the fleet.
        clock: monotonic seconds.
    """

    def __init__(self, reader: Reader, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._clock = clock
        self._lock = asyncio.Lock()
        self._shown: Overview | None = None
        self._changes = -1
        self._read_at = 0.0

    async def latest(self) -> Overview:
        """The overview, not older than a second where something changed."""
        async with self._lock:
            age = self._clock() - self._read_at
            changes = self._reader.changes()
            fresh = age < EVERY_S or (changes == self._changes and age < AT_LEAST_EVERY_S)
            if self._shown is None or not fresh:
                self._shown = await asyncio.to_thread(read, self._reader)
                self._changes, self._read_at = changes, self._clock()
            return self._shown
