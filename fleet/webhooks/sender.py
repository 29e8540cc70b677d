"""Sends what waits in the outbox, a few at a time, so that one slow receiver holds up no other.

Any number of them may run: each delivery is claimed by one, and one that dies leaves its claims
to the others after a minute.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from fleet.services import outbox
from fleet.services.context import Services
from fleet.services.outbox import Claimed
from fleet.webhooks.events import CONTENT_TYPE, signed_headers
from fleet.webhooks.post import TIMEOUT_S, Outcome, post

EVERY_S = 5.0
_TOGETHER = 8
_PAUSE_S = 0.2
_FORGET_EVERY_S = 3600.0
_LOG = logging.getLogger(__name__)


class WebhookSender:
    """Runs `tick` on a thread of its own.

    Args:
        services: the fleet.
        every_s: the longest time between two looks at the outbox.
        timeout_s: how long a receiver may take.
    """

    def __init__(
        self, services: Services, *, every_s: float = EVERY_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._services = services
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._under_way = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._pool = ThreadPoolExecutor(_TOGETHER, thread_name_prefix="webhook")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is under way is not waited for, and sent again after its claim has ended."""
        self._stop.set()
        self._services.changes.hear()
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def tick(self) -> int:
        """Claim what is due, and send it; returns how many deliveries were begun."""
        with self._lock:
            room = _TOGETHER - self._under_way
        claimed = outbox.claim(self._services, room) if room else []
        with self._lock:
            self._under_way += len(claimed)
        for one in claimed:
            self._pool.submit(self._deliver, one)
        return len(claimed)

    def _deliver(self, claimed: Claimed) -> None:
        try:
            outbox.settle(self._services, claimed, self._send(claimed))
        except Exception:  # noqa: BLE001 -- nobody reads the future
            # It is claimed no more in a minute, and tried again.
            _LOG.exception("an event could not be sent to the webhook %s", claimed.webhook)
            self._services.counters.add("webhooks.faults")
        finally:
            with self._lock:
                self._under_way -= 1

    def _send(self, claimed: Claimed) -> Outcome:
        now = self._services.now()
        headers = {
            **signed_headers(claimed.secret, claimed.event, claimed.body, now),
            "content-type": CONTENT_TYPE,
            "user-agent": "edgeml-webhooks",
        }
        return post(
            claimed.url,
            headers,
            claimed.body,
            allow_private=claimed.allow_private,
            timeout_s=self._timeout_s,
        )

    def _run(self) -> None:
        seen = 0
        while not self._stop.is_set():
            try:
                self.tick()
                if self._services.counters.is_due("webhooks.forget", _FORGET_EVERY_S):
                    outbox.forget(self._services)
            except Exception:  # noqa: BLE001 -- no fault may end the thread
                _LOG.exception("the outbox of webhooks could not be read")
                self._services.counters.add("webhooks.faults")
            self._stop.wait(_PAUSE_S)
            seen = self._services.changes.wait(seen, self._every_s)
