"""Processes that open batches, started when there is enough for them to do."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, BinaryIO, cast

from fleet.opening import worker
from fleet.opening.reading import ReadBatch
from fleet.opening.verifying import Asked, opened

MANY = 32
MUCH_BYTES = 256 << 10
_MOST = 8
_LOG = logging.getLogger(__name__)


class Openers:
    """See the module. One thread at a time uses it.

    Args:
        processes: how many at most; one core is left for the process that stores.
    """

    def __init__(self, processes: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0))
        self._most = min(cores - 1, _MOST) if processes is None else processes
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def open(self, asked: Sequence[Asked]) -> list[ReadBatch | None]:
        """Open envelopes; None for each that is not as it should be.

        Many are shared out to the processes; where those fail, they are opened here.
        """
        much = len(asked) >= MANY or sum(len(one.envelope) for one in asked) >= MUCH_BYTES
        if not (much and self._most):
            return [opened(one) for one in asked]
        with self._lock:
            try:
                return self._shared_out(asked)
            except (OSError, EOFError) as error:
                _LOG.warning("a process that opens batches has failed: %s", error or "it is gone")
                self._end()
        return [opened(one) for one in asked]

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._end()

    def _shared_out(self, asked: Sequence[Asked]) -> list[ReadBatch | None]:
        while len(self._workers) < self._most:
            self._workers.append(_Worker())
        each = -(-len(asked) // len(self._workers))
        parts = [asked[at : at + each] for at in range(0, len(asked), each)]
        busy = list(zip(self._workers, parts, strict=False))
        for one, part in busy:
            worker.ask(one.stdin, list(part))
        return [batch for one, _ in busy for batch in worker.answer(one.stdout)]

    def _end(self) -> None:
        for one in self._workers:
            one.end()
        self._workers.clear()


class _Worker:
    def __init__(self) -> None:
        command = [sys.executable, "-m", "fleet.opening"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe)
        self.stdin, self.stdout = _there(self._process.stdin), _there(self._process.stdout)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.stdin.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.stdout.close()


def _there(stream: IO[bytes] | None) -> BinaryIO:
    return cast(BinaryIO, stream)
