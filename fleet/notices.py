"""Carries what changed to the fleet's other processes, by PostgreSQL's LISTEN and NOTIFY.

A notice says only that something changed, or whose identity was replaced; what it is, is read
from the database. Many changes in a row are one notice. Whoever was cut off looks at everything.
"""

import logging
import secrets
import threading
from collections.abc import Callable

import msgspec

from edgeml.errors import EdgemlError
from fleet.services.context import Services

_CHANNEL = "edgeml"
_PAUSE_S = 0.05
_LOOK_S = 0.5
_RETRY_S = 1.0
_MAX_DEVICES = 50  # PostgreSQL takes 8000 bytes in a notice
_LOG = logging.getLogger(__name__)


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What one process tells the others."""

    by: str
    replaced: tuple[str, ...] = ()


class Notices:
    """See the module.

    Args:
        services: of which `changes` and `replaced` are carried, in both directions, and the keys
            are read again.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._me = secrets.token_hex(8)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._replaced: list[str] = []
        self._threads = [
            threading.Thread(target=self._again, args=(run,), name=name, daemon=True)
            for name, run in (("notices in", self._listen), ("notices out", self._tell))
        ]
        services.replaced.tell(self._note)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _again(self, run: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                run()
            except EdgemlError as error:
                _LOG.warning("other processes are not heard: %s", error)
                self._stop.wait(_RETRY_S)

    def _listen(self) -> None:
        with self._services.database.direct("edgeml notices") as connection:
            connection.execute(f"LISTEN {_CHANNEL}".encode())
            self._hear()  # what was said before this is seen by looking
            while not self._stop.is_set():
                for heard in connection.notifies(timeout=_LOOK_S, stop_after=1):
                    try:
                        notice = msgspec.json.decode(heard.payload, type=Notice)
                    except msgspec.DecodeError:
                        # Whoever may connect to the database may say anything here.
                        _LOG.warning("a notice that no process of the fleet has sent")
                        continue
                    if notice.by != self._me:
                        self._hear(notice.replaced)

    def _hear(self, replaced: tuple[str, ...] = ()) -> None:
        self._services.keys.refresh()
        for device in replaced:
            self._services.replaced(device)
        self._services.changes.hear()

    def _tell(self) -> None:
        seen = 0
        with self._services.database.direct("edgeml notices") as connection:
            while not self._stop.is_set():
                now = self._services.changes.wait_own(seen, _LOOK_S)
                replaced = self._take()
                if now > seen or replaced:
                    notice = msgspec.json.encode(Notice(by=self._me, replaced=replaced)).decode()
                    connection.execute(b"SELECT pg_notify(%s, %s)", (_CHANNEL, notice))
                    seen = now
                self._stop.wait(_PAUSE_S)

    def _note(self, device: str) -> None:
        """Tell the others of a replaced device, but not what they have told."""
        if threading.current_thread() is not self._threads[0]:
            with self._lock:
                self._replaced.append(device)

    def _take(self) -> tuple[str, ...]:
        with self._lock:
            taken = tuple(self._replaced[:_MAX_DEVICES])
            del self._replaced[:_MAX_DEVICES]
        return taken
