"""What one process of a fleet does alone, the one that leads (`fleet.leader`).

Each duty gets services whose writes are refused once another process leads; so it writes through
`services.database` only, keeps nothing in memory that matters, and ends soon when it is told to.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from fleet.alerts.watch import AlertWatch
from fleet.controller import Controller
from fleet.external_registry import EVERY_S, ExternalRegistry, Pusher
from fleet.leader import Duty
from fleet.services import decommission, external, identity, retention, rollups, samples, trust
from fleet.services.context import Services
from fleet.services.deltas import DeltaMaker
from fleet.services.external import External
from fleet.services.retention import Retention
from fleet.webhooks.sender import WebhookSender

_LOG = logging.getLogger(__name__)
_FORGET_EVERY_S = 600.0
_END_EVERY_S = 2.0
_RENEW_EVERY_S = 600.0
_RECONCILE_EVERY_S = 3600.0


def duties(
    services: Services, keep: Retention, registry: ExternalRegistry | None = None
) -> Sequence[Duty]:
    """The duties, in the order in which they start; `registry` is where releases are pushed to."""

    def forget() -> None:
        retention.note(services, keep)
        number = retention.forget(services, keep) + samples.forget(services, keep)
        if number:
            _LOG.info("deleted %d rows that are not kept any more", number)

    def renew() -> None:
        trust.keep_fresh(services)
        identity.keep_revoked_fresh(services)

    if registry is not None:
        pusher = Pusher(services, registry)
        pushing = Repeated("registry", EVERY_S, pusher.push_all, pusher.cut)
    else:
        # One that the fleet was started with before is nobody's concern any more.
        pushing = Repeated("registry", _FORGET_EVERY_S, lambda: external.keep(services, External()))
    return (
        Controller(services),
        DeltaMaker(services),
        AlertWatch(services),
        WebhookSender(services),
        Repeated("roll-ups", rollups.EVERY_S, lambda: rollups.fold_all(services)),
        Repeated("retention", _FORGET_EVERY_S, forget),
        Repeated("samples", _RECONCILE_EVERY_S, lambda: samples.reconcile(services)),
        # Devices that have said that they wipe themselves.
        Repeated("decommissioning", _END_EVERY_S, lambda: decommission.go_on(services)),
        Repeated("signing", _RENEW_EVERY_S, renew),
        pushing,
    )


class Repeated:
    """Does something now, and again after each pause; a fault is logged, and ends nothing.

    Args:
        name: what it is, for the log.
        every_s: the pause.
        action: what to do.
        cut: ends what would last, when it is told to stop.
    """

    def __init__(
        self,
        name: str,
        every_s: float,
        action: Callable[[], object],
        cut: Callable[[], object] = lambda: None,
    ) -> None:
        self._name = name
        self._every_s = every_s
        self._action = action
        self._cut = cut
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is under way."""
        self._stop.set()
        self._cut()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._action()
            except Exception:  # noqa: BLE001 -- no fault may end the thread
                _LOG.exception("%s did not go well", self._name)
            self._stop.wait(self._every_s)
