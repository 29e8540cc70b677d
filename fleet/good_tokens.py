"""Devices' tokens that were verified a moment ago: their next requests need no database.

A device that updates asks a dozen things within a second, each with the same token. What is
remembered is gone after `GOOD_S`, and at once when the device is revoked or enrolled anew.
"""

import threading
import time

GOOD_S = 2.0
MOST = 20_000


class GoodTokens:
    """See the module. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, str, float]] = {}
        self._of: dict[str, str] = {}

    def get(self, header: str) -> tuple[str, float] | None:
        """The device of a token, and until when its certificate is good; None if not remembered."""
        found = self._known.get(header)
        if found is None or time.monotonic() > found[0]:
            return None
        return found[1], found[2]

    def keep(self, header: str, device: str, good_until: float) -> None:
        """Remember a token that was verified, the last one of each device."""
        with self._lock:
            if len(self._known) >= MOST:
                self._known.clear()
                self._of.clear()
            self._known.pop(self._of.pop(device, ""), None)
            self._known[header] = (time.monotonic() + GOOD_S, device, good_until)
            self._of[device] = header

    def forget(self, device: str) -> None:
        """Verify a device's token anew the next time."""
        with self._lock:
            self._known.pop(self._of.pop(device, ""), None)
