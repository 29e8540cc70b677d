"""What the agent keeps of the outbox: it runs without one, and tries again to have it.

A full or broken disk silences the device; it must not stop it.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cloud_sync.messages import RecordKind
from edgeml.errors import DeviceError

if TYPE_CHECKING:
    from cloud_sync.outbox import Outbox

log = logging.getLogger(__name__)

RETRY_S = 10.0


class Records:
    """See the module. `open_outbox` opens the outbox; its DeviceError means not now."""

    def __init__(self, open_outbox: "Callable[[], Outbox]") -> None:
        self._open = open_outbox
        self._outbox: Outbox | None = None
        self._lock = threading.Lock()
        self._retry_at = -RETRY_S
        self._last_error = ""

    @property
    def outbox(self) -> "Outbox | None":
        """The outbox; None while it cannot be used."""
        with self._lock:
            if self._outbox is not None and self._outbox.damaged:
                self._outbox.close()
                self._outbox = None
            if self._outbox is None and time.monotonic() >= self._retry_at:
                self._retry_at = time.monotonic() + RETRY_S
                try:
                    self._outbox = self._open()
                except DeviceError as error:
                    self._note(error)
            return self._outbox

    def append(self, kind: RecordKind, body: msgspec.Struct) -> None:
        """Store a record; where that cannot be done it is lost, and the log says so."""
        outbox = self.outbox
        if outbox is None:
            log.debug("a record of kind %s is lost: there is no outbox", kind)
            return
        try:
            outbox.append(kind, body)
            self._last_error = ""
        except DeviceError as error:
            self._note(error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._outbox is not None:
                self._outbox.close()

    def _note(self, error: DeviceError) -> None:
        if str(error) != self._last_error:
            log.error("records are lost: %s", error)
        self._last_error = str(error)
