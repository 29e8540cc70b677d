"""The updates of all models: a driver for each, and the garbage that old releases leave."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from cloud_sync.messages import Phase
from cloud_sync.update_machine import IN_MOTION, Restarted, kept, waits
from edge_agent.choices import Choices
from edge_agent.following import Following
from edge_agent.store import ReleaseStore
from edge_agent.twin import Twin
from edge_agent.update.driver import UpdateDriver
from edge_agent.update.fetching import Connect
from edge_agent.update.hooks import Hooks
from edgeml.errors import DeviceError, EdgemlError

if TYPE_CHECKING:
    from edge_agent.ledger import Ledger
    from edge_agent.trust.identity import Identity
    from edge_agent.update.deltas import Deltas
    from hardware.capabilities import Capabilities
    from hardware.pipeline import Pipeline

log = logging.getLogger(__name__)

MOVING_S = 0.1
STILL_S = 1.0


class Updates:
    """See the module. The thread of a model calls `turn` for it, others the rest.

    Args:
        identity: who this device is.
        twin: what each model's state is.
        following: told when another release runs.
        capabilities: what this device is.
        choices: how each release is executed here.
        registry: makes a connection to the registry.
        hooks: what a driver asks of the agent.
        ledger: what the network use of updates is charged to.
        deltas: makes what leads from the blobs of a store to others.
    """

    def __init__(
        self,
        identity: "Identity",
        twin: Twin,
        following: Following,
        *,
        capabilities: "Capabilities",
        choices: Choices,
        registry: Connect,
        hooks: Hooks,
        ledger: "Ledger | None" = None,
        deltas: "Callable[[ReleaseStore], Deltas] | None" = None,
    ) -> None:
        self._config = identity.config
        self._twin = twin
        self._following = following
        self._capabilities = capabilities
        self._choices = choices
        self._registry = registry
        self._hooks = hooks
        self._store = ReleaseStore(identity.data / "releases")
        self._ledger = ledger
        self._deltas = deltas(self._store) if deltas is not None else None
        self._drivers: dict[str, UpdateDriver] = {}
        self._unjournalled: set[str] = set()
        self._litter = threading.Event()
        self._stopped = False

    @property
    def store(self) -> ReleaseStore:
        """Where releases are."""
        return self._store

    @property
    def models(self) -> list[str]:
        """The models that have a driver."""
        return list(self._drivers)

    def bring_up(self, model: str, *, crashed: bool) -> None:
        """Have a model run what the journal says; `crashed`: the agent did, maybe by this model."""
        driver = self._driver(model)
        try:
            state = self._twin.apply(model, Restarted(crashed=crashed))
        except DeviceError as error:
            # A trial whose restarts are not counted could go on for ever: until they can be,
            # what was committed runs.
            log.error("%s", error)  # noqa: TRY400 -- the sentence says it all
            self._unjournalled.add(model)
            state = self._twin.state.models[model]
            if state.phase is Phase.TRIAL:
                state = msgspec.structs.replace(state, phase=Phase.TESTING)
        # The last change may have been journalled and not recorded any more.
        self._twin.tell(model, driver.bring_up(state))

    def turn(self, model: str) -> None:
        """Do what is due for a model, or wait until something may be.

        Raises:
            Interrupted: it was woken; another turn is due.
        """
        driver = self._drivers[model]
        driver.wake.clear()
        if self._stopped:
            return
        if model in self._unjournalled:
            self._twin.apply(model, Restarted())
            self._unjournalled.discard(model)
        state = self._twin.state.models[model]
        after = driver.turn(state)
        if after.phase in IN_MOTION:
            pause_s = STILL_S if waits(after) else MOVING_S
            driver.wake.wait(pause_s if after == state else 0.0)
            return
        if state.phase in IN_MOTION:
            driver.bring_up(after)
            self._litter.set()
            self._following.again()
        if self._litter.is_set():
            self._collect_garbage()
        driver.wake.wait(STILL_S)

    def wake(self, model: str) -> bool:
        """Have a model's next turn at once; whether it had a driver already."""
        known = model in self._drivers
        self._driver(model).wake.set()
        return known

    def littered(self) -> None:
        """Look for garbage soon."""
        self._litter.set()

    def renew(self) -> None:
        """Load what runs anew, and free what is there now."""
        for driver in list(self._drivers.values()):
            driver.renew()

    def stop(self) -> None:
        """Begin no more turns, and leave those that last."""
        self._stopped = True
        for driver in list(self._drivers.values()):
            driver.interrupt()

    def close(self) -> None:
        """Close the connections, when all turns have ended."""
        for driver in self._drivers.values():
            driver.close()

    def pipelines(self) -> "Mapping[str, list[Pipeline]]":
        """Of each model, those of the releases that may take frames now."""
        found: dict[str, list[Pipeline]] = {}
        for model, driver in list(self._drivers.items()):
            releases = (self._hooks.running(model), driver.warm)
            found[model] = [r.pipeline for r in releases if r is not None]
        return found

    def _driver(self, model: str) -> UpdateDriver:
        with self._twin.lock:
            if model not in self._drivers:
                self._drivers[model] = UpdateDriver(
                    model,
                    store=self._store,
                    registry=self._registry,
                    capabilities=self._capabilities,
                    choices=self._choices,
                    ceiling=self._config.memory_mb << 20,
                    device=self._config.device,
                    hooks=self._hooks,
                    ledger=self._ledger,
                    deltas=self._deltas,
                )
            return self._drivers[model]

    def _collect_garbage(self) -> None:
        self._litter.clear()
        try:
            removed = self._store.keep_only(self._kept)
        except (EdgemlError, OSError) as error:
            log.warning("old releases were not removed: %s", error)
            return
        if removed is None:
            self._litter.set()  # another model's update is at work; later
        elif removed:
            log.info("%d files of old releases were removed", removed)

    def _kept(self) -> list[tuple[str, str]]:
        return [
            (desired.release, desired.variant)
            for state in self._twin.state.models.values()
            for desired in kept(state)
        ]
