"""What the console reads: the same resources as the REST API gives, through the same services.

`Reader` is all that the console knows of the fleet, so that its pages can be looked at and
tested with any fleet that one can think of.
"""

from collections.abc import Sequence
from typing import Protocol

from fleet.resources import AuditInfo, DeviceInfo, Explanation, Health, ReleaseInfo, RolloutInfo
from fleet.services import audit, devices, health, releases, rollouts
from fleet.services.context import Services

MAX_ROLLOUTS = 8
MAX_EVENTS = 20


class Reader(Protocol):
    """Read functions; they may block, and are called from worker threads."""

    def changes(self) -> int:
        """A number that rises when something may have changed."""
        ...

    def now(self) -> float:
        """The fleet's clock."""
        ...

    def health(self) -> Health:
        """Whether the parts of the fleet work."""
        ...

    def devices(self) -> Sequence[DeviceInfo]:
        """The devices, by name."""
        ...

    def rollouts(self) -> Sequence[RolloutInfo]:
        """The latest rollouts, newest first."""
        ...

    def explain(self, rollout: str) -> Explanation:
        """Why a rollout stands where it stands."""
        ...

    def releases(self) -> Sequence[ReleaseInfo]:
        """The releases, newest first."""
        ...

    def events(self) -> Sequence[AuditInfo]:
        """The latest of what happened, newest first."""
        ...


class ServicesReader:
    """Reads from the fleet that runs in this process."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def changes(self) -> int:
        """See `Reader`."""
        return self._services.changes.count

    def now(self) -> float:
        """See `Reader`."""
        return self._services.now()

    def health(self) -> Health:
        """See `Reader`."""
        return health.show(self._services)

    def devices(self) -> Sequence[DeviceInfo]:
        """See `Reader`."""
        return devices.list_devices(self._services)["items"]

    def rollouts(self) -> Sequence[RolloutInfo]:
        """See `Reader`."""
        return rollouts.list_rollouts(self._services, limit=MAX_ROLLOUTS)

    def explain(self, rollout: str) -> Explanation:
        """See `Reader`."""
        return rollouts.explain(self._services, rollout)

    def releases(self) -> Sequence[ReleaseInfo]:
        """See `Reader`."""
        return releases.list_releases(self._services, "")

    def events(self) -> Sequence[AuditInfo]:
        """See `Reader`."""
        return audit.entries(self._services, limit=MAX_EVENTS)["items"]
