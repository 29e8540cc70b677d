"""Live state for many clients: one thread looks for changes, each client has a bounded queue.

A client that is too slow for its queue, or that comes back after what it missed is gone, is told
to read the state anew (`resync`); it is never held in memory, and never left with a gap that it
does not know of. The thread runs only while somebody listens, and a while after.
"""

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from fleet import events_state
from fleet.events_state import Event, State
from fleet.problem import TooMany
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.services.context import Services

TYPES = ("alert", "device", "devices", "health", "rollout")
MAX_CLIENTS = 200
MAX_WAITING = 500
_KEPT = 2000
_SHARES = 4  # one person has no more than this part of the clients
_EVERY_S = 5.0
_PAUSE_S = 0.5
_LINGER_S = 60.0
_LOG = logging.getLogger(__name__)
See = Callable[[Event], bool]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An event with its place in the stream."""

    id: str
    event: Event


class Listener:
    """One client's queue; used on the event loop that made it.

    Args:
        types: the types of events that it wants.
        scope: the devices that it may hear of.
        waiting: how many events may wait for it.
        who: whose it is.
    """

    def __init__(
        self,
        types: Collection[str],
        scope: Selector = EVERYTHING,
        waiting: int = MAX_WAITING,
        who: str = "",
    ) -> None:
        self.scope = scope
        self.who = who
        self.is_over = False
        self._types = frozenset(types)
        self._most = waiting
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Told] = deque()
        self._some = asyncio.Event()

    def tell(self, told: Sequence[Told]) -> None:
        """Hand events over, from any thread."""
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self.take, told)

    def take(self, told: Sequence[Told]) -> None:
        """Queue the events that it wants; if there are too many, they become one `resync`."""
        for one in told:
            if not self._wants(one.event):
                continue
            if len(self._waiting) >= self._most:
                self._waiting.clear()
                one = resync(one.id, "slow")  # noqa: PLW2901 -- it stands for all of them
            elif self._cannot_tell(one.event):
                one = resync(one.id, "missed")  # noqa: PLW2901 -- without a word of what
            self._waiting.append(one)
        if self._waiting:
            self._some.set()

    def end(self) -> None:
        """Say that nothing more comes, from any thread."""
        self.is_over = True
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._some.set)

    async def next(self, timeout_s: float) -> Told | None:
        """The next event; none within the time, or when nothing more comes."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._some.wait()
        except TimeoutError:
            return None
        if not self._waiting:
            return None
        told = self._waiting.popleft()
        if not self._waiting:
            self._some.clear()
        return told

    def _wants(self, event: Event) -> bool:
        if event.type == "resync":
            return True
        if event.type not in self._types:
            return False
        if not self.scope.requirements:
            return True
        # What speaks of more than one device is for those who see them all.
        return self._cannot_tell(event) or (
            event.type == "device" and self.scope.matches(event.labels or {})
        )

    def _cannot_tell(self, event: Event) -> bool:
        """Whether it may be of a device in the scope, or of others: nobody read their labels."""
        blind = event.type == "devices" or (event.type == "device" and event.labels is None)
        return blind and bool(self.scope.requirements)


def resync(place: str, reason: str) -> Told:
    """Tells a client to read the state anew: `connected`, `missed` or `slow`."""
    return Told(id=place, event=Event(type="resync", subject="", data={"reason": reason}))


class EventHub:
    """Tells listeners what changes.

    Args:
        services: the fleet.
        clients: how many may listen at once.
        every_s: the longest time between two looks.
    """

    def __init__(
        self, services: Services, *, clients: int = MAX_CLIENTS, every_s: float = _EVERY_S
    ) -> None:
        self._services = services
        self._most = clients
        self._every_s = every_s
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._kept: deque[Told] = deque(maxlen=_KEPT)
        self._name = ""
        self._number = 0
        self._left_at = 0.0
        self._thread: threading.Thread | None = None
        self._new: list[tuple[Listener, str]] = []
        self._is_closed = threading.Event()

    @property
    def clients(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def require_room(self, who: str = "") -> None:
        """Refuse one client too many: of all, or of somebody who leaves no room to others.

        Raises:
            TooMany: as many listen as may.
        """
        with self._lock:
            own = sum(one.who == who for one in self._listeners)
        share = max(1, self._most // _SHARES) if who else self._most
        if len(self._listeners) >= self._most or own >= share:
            raise TooMany(
                f"{min(share, self._most)} clients listen to events already.",
                fix="Read the state now and then, or come back in a moment.",
            )

    def join(self, listener: Listener, after: str = "") -> None:
        """Begin to tell a listener; `after` is the last event that it had, if it had any."""
        with self._lock:
            if self._thread is None:
                self._name = ""
                self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                self._thread.start()
            self._listeners.add(listener)
            if self._is_closed.is_set():
                listener.end()
            if not self._name:
                self._new.append((listener, after))
                return
            known = [told.id for told in self._kept]
            last = f"{self._name}-{self._number}"
            if after and after == last:
                missed: list[Told] = []
            elif after in known:
                missed = list(self._kept)[known.index(after) + 1 :]
            else:
                missed = [resync(last, "missed" if after else "connected")]
            listener.tell(missed)

    def leave(self, listener: Listener) -> None:
        """Tell it no more."""
        with self._lock:
            self._listeners.discard(listener)
            self._left_at = time.monotonic()

    def close(self) -> None:
        """End, and the streams of whoever listens with it."""
        self._is_closed.set()
        with self._lock:
            for listener in self._listeners:
                listener.end()
        self._services.changes.hear()
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        seen = self._services.changes.count
        before: State | None = None
        while not self._ends():
            after = self._read()
            if before is not None and after is not None:
                self._publish(list(events_state.between(before, after)))
            elif after is not None:
                self._begin()
            before = after or before
            self._is_closed.wait(_PAUSE_S)
            seen = self._services.changes.wait(seen, self._every_s)

    def _begin(self) -> None:
        """Have listeners read the state: from the one that was just read on they are told all."""
        with self._lock:
            self._name, self._number = secrets.token_hex(4), 0
            self._kept.clear()
            for listener, after in self._new:
                listener.tell([resync(f"{self._name}-0", "missed" if after else "connected")])
            self._new.clear()

    def _read(self) -> State | None:
        with self._lock:
            labels = any(one.scope.requirements for one in self._listeners)
        try:
            return events_state.read(self._services, labels=labels)
        except SQLAlchemyError:
            _LOG.exception("the state could not be read; events wait")
            return None

    def _publish(self, events: Sequence[Event]) -> None:
        if not events:
            return
        with self._lock:
            told = []
            for event in events:
                self._number += 1
                told.append(Told(id=f"{self._name}-{self._number}", event=event))
            self._kept.extend(told)
            for listener in self._listeners:
                listener.tell(told)

    def _ends(self) -> bool:
        with self._lock:
            idle = not self._listeners and time.monotonic() - self._left_at > _LINGER_S
            ends = idle or self._is_closed.is_set()
            if ends:
                self._thread = None
            return ends
