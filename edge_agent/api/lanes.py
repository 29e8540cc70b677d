"""Lanes: the threads that requests are answered on, so that slow answers hold up none but theirs.

A lane has few daemon threads and a short queue; one that is full refuses. The threads are no
`ThreadPoolExecutor`'s since Python waits for those at its end, and one that hangs in a driver
never comes.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class LaneFull(Exception):  # noqa: N818 -- a state, not a fault
    """The lane's queue has no place."""


class Lane(Generic[T]):
    """Some threads, started when they are first needed."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._name = name
        self._threads = threads
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue(waiting)
        self._started: list[threading.Thread] = []
        self._busy = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Answer on one of the lane's threads.

        Raises:
            LaneFull: too many wait already.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(method: Callable[[Any], None], value: Any) -> None:
            if not answer.done():
                method(value)

        def job() -> None:
            try:
                made = work()
            except BaseException as error:  # noqa: BLE001 -- it is raised where the answer is awaited
                _call(loop, settle, answer.set_exception, error)
            else:
                _call(loop, settle, answer.set_result, made)

        try:
            self._work.put_nowait(job)
        except queue.Full:
            raise LaneFull(self._name) from None
        self._busy += 1
        if self._busy > len(self._started) < self._threads:
            self._start()
        try:
            return await answer
        finally:
            self._busy -= 1

    def close(self) -> None:
        """Let the threads end after what they are at."""
        for _ in self._started:
            try:
                self._work.put_nowait(None)
            except queue.Full:
                return  # they are daemons

    def join(self, timeout_s: float) -> None:
        """Wait for each thread's end, for at most this long."""
        for thread in self._started:
            thread.join(timeout_s)

    def _start(self) -> None:
        name = f"api-{self._name}-{len(self._started)}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._started.append(thread)
        thread.start()

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            job()


def _call(loop: asyncio.AbstractEventLoop, what: Callable[..., None], *arguments: Any) -> None:
    try:
        loop.call_soon_threadsafe(what, *arguments)
    except RuntimeError:
        return  # the loop is closed: nobody waits for the answer any more
