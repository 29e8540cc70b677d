"""What the fleet wants of this device and what it is: the journal, and every change of it.

A desired state is journalled whole, before anything acts on it. Its configuration is validated,
tried and then committed or rolled back with the reason; each model's machine steps by events.
Nobody holds the lock while waiting for anything but the disk.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from cloud_sync.messages import Configuration, DesiredState, StateRecord
from cloud_sync.update_machine import Event, ModelState, Unwanted, Wanted, report, step
from edge_agent.configuration_trial import Seen, judge, needs_trial
from edge_agent.update.journal import DeviceState, Journal

if TYPE_CHECKING:
    from hardware.pipeline import Pipeline

log = logging.getLogger(__name__)

AGAIN_S = 600.0
MAX_TRIAL_BOOTS = 3

replace = msgspec.structs.replace


class Twin:
    """See the module.

    Args:
        journal: the commit point.
        tell: called with every change of a model's state.
        pipelines: of each model, those of the releases that may take frames now.
    """

    def __init__(
        self,
        journal: Journal,
        tell: Callable[[StateRecord], None],
        pipelines: Callable[[], Mapping[str, "Iterable[Pipeline]"]],
    ) -> None:
        self.lock = threading.RLock()
        self._journal = journal
        self._tell = tell
        self._pipelines = pipelines
        self._began = time.monotonic()
        self._ended = self._began

    @property
    def state(self) -> DeviceState:
        """The state as it is journalled."""
        return self._journal.state

    @property
    def configuration(self) -> Configuration:
        """The configuration to follow: the one that is tried, else the one committed."""
        state = self._journal.state
        return state.configuration if state.trying is None else state.trying

    def accept(self, wanted: DesiredState, envelope: str) -> list[str]:
        """Journal an accepted desired state, all of it at once; the models that it changes."""
        with self.lock:
            state = self._journal.state
            before = state.models
            events: dict[str, Event] = {model: Unwanted() for model in before}
            events |= {model: Wanted(desired=desired) for model, desired in wanted.models.items()}
            after = {
                model: step(before.get(model, ModelState()), event)
                for model, event in events.items()
            }
            state = replace(
                state,
                accepted=envelope,
                epoch=wanted.epoch,
                counter=wanted.counter,
                proven=max(state.proven, wanted.issued_at),
                wanted=wanted.configuration,
                models=after,
            )
            tried = state.trying
            self._journal.write(self._configured(state))
            if self._journal.state.trying != tried:
                self._began = time.monotonic()
            changed = [model for model in after if after[model] != before.get(model)]
            for model in changed:
                self.tell(model, after[model])
        return changed

    def apply(self, model: str, event: Event) -> ModelState:
        """Step a model's machine, journal it and tell the fleet."""
        with self.lock:
            state = self._journal.state
            before = state.models.get(model, ModelState())
            after = step(before, event)
            if after != before:
                self._journal.write(replace(state, models={**state.models, model: after}))
                self.tell(model, after)
        return after

    def tell(self, model: str, state: ModelState) -> None:
        """Tell the fleet what a model is."""
        journal = self._journal.state
        self._tell(
            StateRecord(
                model=model,
                state=report(state),
                desired_epoch=journal.epoch,
                desired_counter=journal.counter,
            )
        )

    def restarted(self) -> None:
        """The agent came up: a configuration with which it keeps starting is rolled back."""
        with self.lock:
            state = self._journal.state
            if state.trying is None:
                return
            boots = state.trying_boots + 1
            if boots < MAX_TRIAL_BOOTS:
                self._journal.write(replace(state, trying_boots=boots))
            else:
                self._end(f"the agent had to start {boots} times while it was tried")

    def configure_again(self) -> bool:
        """Try a refused configuration again: a release may run now that it had waited for."""
        with self.lock:
            state = self._journal.state
            if not state.config_error:
                return False
            self._journal.write(self._configured(state))
            self._began = time.monotonic()
            return self._journal.state != state

    def is_due(self) -> bool:
        """Whether a configuration that was rolled back should be tried once more."""
        waited = time.monotonic() - self._ended > AGAIN_S
        return waited and bool(self._journal.state.config_error)

    def judge(self, see: Callable[[float], Seen]) -> bool:
        """Judge the configuration that is tried; whether that ended its trial."""
        with self.lock:
            state = self._journal.state
            if state.trying is None:
                return False
            seen = see(time.monotonic() - self._began)
            verdict = judge(state.configuration, state.trying, seen)
            if verdict is not None:
                self._end(verdict)
            return verdict is not None

    def _end(self, error: str) -> None:
        state = self._journal.state
        assert state.trying is not None
        version = state.trying.config_version
        if error:
            log.warning("configuration %s rolled back: %s", version, error)
        else:
            state = replace(state, configuration=state.trying)
            log.info("configuration %s committed", version)
        self._ended = time.monotonic()
        self._journal.write(replace(state, trying=None, trying_boots=0, config_error=error))

    def _configured(self, state: DeviceState) -> DeviceState:
        """The state with the wanted configuration on trial, or with the reason why it is not."""
        wanted = state.wanted
        if wanted == state.configuration:
            return replace(state, trying=None, trying_boots=0, config_error="")
        if wanted == state.trying:
            return state
        from edge_agent.configuration import problem

        error = problem(wanted, self._pipelines())
        if error:
            log.warning("configuration %s refused: %s", wanted.config_version, error)
            self._ended = time.monotonic()
            return replace(state, trying=None, trying_boots=0, config_error=error)
        if needs_trial(state.configuration, wanted):
            return replace(state, trying=wanted, trying_boots=0, config_error="")
        return replace(state, configuration=wanted, trying=None, trying_boots=0, config_error="")
