"""Looks after the conditions of alerts on a thread of its own, and soon after every change.

Several of them may run at once: each look is one transaction, and they take turns.
"""

import logging
import threading

from fleet.services import alerts
from fleet.services.context import Services

EVERY_S = 10.0
_PAUSE_S = 2.0
_LOG = logging.getLogger(__name__)


class AlertWatch:
    """Runs `alerts.look`.

    Args:
        services: the fleet.
        every_s: the longest time between two looks.
    """

    def __init__(self, services: Services, *, every_s: float = EVERY_S) -> None:
        self._services = services
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the look that is under way."""
        self._stop.set()
        self._services.changes.hear()
        self._thread.join()

    def _run(self) -> None:
        seen = 0
        while not self._stop.is_set():
            try:
                alerts.look(self._services)
            except Exception:  # noqa: BLE001 -- no fault may end the thread
                _LOG.exception("alerts could not be looked after")
                self._services.counters.add("alerts.faults")
            self._stop.wait(_PAUSE_S)
            seen = self._services.changes.wait(seen, self._every_s)
