"""What takes a model's frames: loaded, swapped in between two frames, kept warm, closed."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from cloud_sync.messages import DesiredModel, Phase
from cloud_sync.update_machine import ModelState, live, same_release
from edge_agent.choices import Choices
from edge_agent.failpoints import reach
from edge_agent.loaded import LoadedRelease, load
from edge_agent.resources import give_back
from edge_agent.store import ReleaseStore
from edge_agent.update.hooks import Hooks
from edgeml.errors import ModelError

log = logging.getLogger(__name__)


class Serving:
    """See the module.

    Attributes:
        warm: the release before, still loaded while a trial lasts.
        trial_began: when it did, by the monotonic clock.
        renew: whether what runs is to be loaded anew.
    """

    def __init__(self, model: str, store: ReleaseStore, choices: Choices, hooks: Hooks) -> None:
        self.warm: LoadedRelease | None = None
        self.trial_began = 0.0
        self.renew = False
        self._model = model
        self._store = store
        self._choices = choices
        self._hooks = hooks

    def settle(self, state: ModelState) -> None:
        """Make it what the state says.

        Raises:
            ModelError: the release cannot be loaded.
            ReleaseError: its files are damaged or gone.
            OSError: they cannot be read.
        """
        wanted = live(state)
        trial = state.phase is Phase.TRIAL
        if not trial and self._hooks.stuck_s(self._model):
            self._hooks.abandon(self._model)
        running = self._hooks.running(self._model)
        if wanted is None:
            _close(self._hooks.retire(self._model))
        elif not self.renew and running is not None and same_release(running.desired, wanted):
            running.desired = wanted
        else:
            self.renew = False
            loaded = self._ready(wanted, trial=trial)
            reach("swap")
            before = self._hooks.go_live(self._model, loaded)
            reach("swapped")
            if trial:
                _close(self.warm)
                self.warm = before
                self.trial_began = time.monotonic()
            else:
                _close(before)
        if not trial:
            _close(self.warm)
            self.warm = None
            self.trial_began = 0.0

    def _ready(self, wanted: DesiredModel, *, trial: bool) -> LoadedRelease:
        site = self._hooks.site(self._model)
        warm = self.warm
        if warm is not None and same_release(warm.desired, wanted):
            self.warm = None
            warm.desired = wanted
            try:
                warm.set_site(site)
            except ModelError as error:
                log.warning("%s keeps the site parameters it had: %s", self._model, error)
            return warm
        try:
            return self._load(wanted, site)
        except ModelError:
            if trial or not site:
                raise
            # What was committed must come up, whatever was configured for another release.
            return self._load(wanted, {})

    def _load(self, wanted: DesiredModel, site: Mapping[str, Any]) -> LoadedRelease:
        execution = self._choices.of(wanted, self._store.variant(wanted.release, wanted.variant))
        return load(self._store, wanted, site, execution, spin=self._choices.spin)


def _close(loaded: LoadedRelease | None) -> None:
    if loaded is not None:
        loaded.close()
        give_back()
