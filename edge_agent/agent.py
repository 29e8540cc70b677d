"""The agent: composes sources, workers, updates and the link to the fleet.

Threads: one for each source, for each model a worker and one for its updates, and three here:
the link to the fleet, the telemetry, and the watch over stuck inference. What is shared between
them is the journal's state, under one lock, which nobody holds while waiting for a frame. None
of them takes the others with it: what fails is logged and goes on.
"""

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.evidence import Evidence
from cloud_sync.messages import DesiredState, Hello, Phase, RecordKind, StateRecord
from cloud_sync.messages import Window as WindowRecord
from cloud_sync.outbox import Outbox
from cloud_sync.transfer import OciClient
from edge_agent.configuration import Sources, problem
from edge_agent.identity import Identity
from edge_agent.link import FleetLink
from edge_agent.records import Records
from edge_agent.results import ResultsFile
from edge_agent.store import ReleaseStore
from edge_agent.update.driver import Hooks, Interrupted, UpdateDriver
from edge_agent.update.journal import DeviceState, Journal
from edge_agent.update.machine import (
    IN_MOTION,
    Event,
    ModelState,
    Restarted,
    Unwanted,
    Wanted,
    kept,
    report,
    step,
)
from edge_agent.workers import Workers
from edgeml.errors import DeviceError, EdgemlError
from hardware.pipeline import Pipeline
from hardware.probes import agent_version, boot_id, probe

log = logging.getLogger(__name__)

TURN_S = 0.2
MOVING_S = 0.1
STILL_S = 1.0
CLOSE_S = 1.0
AFTER_FAULT_S = 1.0
WATCH_S = 0.5
REPORT_S = 1.0
MAX_ABANDONED = 2


class Agent:
    """One device's daemon."""

    def __init__(self, identity: Identity) -> None:
        data = identity.data
        self._identity = identity
        self._device = identity.config.device
        self._only = _only_one(data / "agent.lock")
        self._capabilities = probe()
        self._boot_id = boot_id()
        self._lock = threading.RLock()
        self._journal = Journal(data / "state.json")
        self._store = ReleaseStore(data / "releases")
        self._records = Records(lambda: Outbox(data / "outbox.db", self._device, self._boot_id))
        self._results = ResultsFile(data / "results.jsonl")
        self._workers = Workers(self._results.write, self._record_windows)
        self._sources = Sources(self._workers.deliver)
        self._configuring = threading.Lock()
        self._drivers: dict[str, UpdateDriver] = {}
        self._unjournalled: set[str] = set()
        self._stop = threading.Event()
        self._litter = threading.Event()
        self._fatal: DeviceError | None = None
        self._link = FleetLink(
            identity,
            lambda: self._records.outbox,
            hello=self._hello,
            state=lambda: self._journal.state,
            on_desired=self._desired,
            boot_id=self._boot_id,
        )
        self._threads = [
            self._thread("link", lambda: self._link.turn(TURN_S)),
            self._thread("telemetry", self._telemetry_turn),
            self._thread("watch", self._watch_turn),
        ]

    def start(self) -> None:
        """Bring up what the journal says was running, then everything else."""
        models = list(self._journal.state.models)
        for model in models:
            self._guarded(partial(self._bring_up, model))
        self._litter.set()
        self._sources.apply(self._journal.state.configuration.sources)
        self._link.start()
        for thread in list(self._threads):
            thread.start()
        for model in models:
            self._begin_updates(model)
        log.info("%s is up", self._device)

    def _bring_up(self, model: str) -> None:
        driver = self._driver(model)
        try:
            state = self._apply(model, Restarted())
        except DeviceError as error:
            # A trial whose restarts are not counted could go on for ever: until they can be,
            # what was committed runs.
            log.error("%s", error)  # noqa: TRY400 -- the sentence says it all
            self._unjournalled.add(model)
            state = self._journal.state.models[model]
            if state.phase is Phase.TRIAL:
                state = msgspec.structs.replace(state, phase=Phase.TESTING)
        # The last change may have been journalled and not recorded any more.
        self._tell(model, driver.bring_up(state))

    def _begin_updates(self, model: str) -> None:
        thread = self._thread(f"updates-{model}", partial(self._update_turn, model))
        self._threads.append(thread)
        thread.start()

    def _thread(self, name: str, turn: Callable[[], None]) -> threading.Thread:
        return threading.Thread(target=self._until_stopped, args=[turn], name=name, daemon=True)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """End everything; what does not end in time is left to the end of the process.

        Nothing is lost by that: the journal and the outbox are always whole.
        """
        deadline = time.monotonic() + timeout_s
        self._stop.set()
        for driver in list(self._drivers.values()):
            driver.wake.set()
        self._sources.stop()
        self._workers.stop()
        self._sources.join(_left(deadline))
        self._workers.join(deadline)
        for thread in list(self._threads):
            if thread.ident is not None:
                thread.join(_left(deadline))
        self._guarded(lambda: self._workers.report(0.0))
        goodbye = threading.Thread(target=self._link.close, name="goodbye", daemon=True)
        goodbye.start()
        goodbye.join(_left(deadline))
        if goodbye.is_alive() or any(thread.is_alive() for thread in self._threads):
            return
        for driver in self._drivers.values():
            driver.close()
        self._records.close()
        self._results.close()
        self._only.close()

    def run(self, wait: Callable[[], None]) -> None:
        """Run until `wait` returns; then end within two seconds.

        Raises:
            DeviceError: something is broken that only another process can mend.
        """
        try:
            self.start()
            wait()
        finally:
            self.close()
        if self._fatal is not None:
            raise self._fatal

    def _until_stopped(self, turn: Callable[[], None]) -> None:
        while not self._stop.is_set():
            if not self._guarded(turn):
                self._stop.wait(AFTER_FAULT_S)

    def _guarded(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Interrupted:
            pass
        except EdgemlError as error:
            log.error("%s", error)  # noqa: TRY400 -- the sentence says it all
            return False
        except Exception:
            # A fault of ours in one thread must not silence the device.
            log.exception("an unexpected fault")
            return False
        return True

    def _desired(self, wanted: DesiredState, envelope: str) -> None:
        """Journal an accepted desired state, all of it at once, and begin to act on it."""
        with self._lock:
            state = self._journal.state
            before = state.models
            events: dict[str, Event] = {model: Unwanted() for model in before}
            events |= {model: Wanted(desired=desired) for model, desired in wanted.models.items()}
            after = {
                model: step(before.get(model, ModelState()), event)
                for model, event in events.items()
            }
            state = msgspec.structs.replace(
                state,
                accepted=envelope,
                epoch=wanted.epoch,
                counter=wanted.counter,
                proven=max(state.proven, wanted.issued_at),
                wanted=wanted.configuration,
                models=after,
            )
            self._journal.write(self._configured(state))
            changed = [model for model in after if after[model] != before.get(model)]
            for model in changed:
                self._tell(model, after[model])
        self._use_configuration()
        log.info("desired state (%s, %s) accepted", wanted.epoch, wanted.counter)
        if changed:
            self._litter.set()
        for model in changed:
            if model in self._drivers:
                self._drivers[model].wake.set()
            else:
                self._driver(model)
                self._begin_updates(model)

    def _configured(self, state: DeviceState) -> DeviceState:
        """The state with the wanted configuration applied, or with the reason why it is not."""
        if state.wanted == state.configuration:
            return msgspec.structs.replace(state, config_error="")
        error = problem(state.wanted, self._pipelines())
        if error:
            log.warning("configuration %s refused: %s", state.wanted.config_version, error)
            return msgspec.structs.replace(state, config_error=error)
        return msgspec.structs.replace(state, configuration=state.wanted, config_error="")

    def _pipelines(self) -> dict[str, list[Pipeline]]:
        found: dict[str, list[Pipeline]] = {}
        for model, driver in list(self._drivers.items()):
            releases = (self._workers.running(model), driver.warm)
            found[model] = [r.pipeline for r in releases if r is not None]
        return found

    def _use_configuration(self) -> None:
        """Let sources and workers follow the configuration that the journal holds."""
        with self._configuring:
            self._sources.apply(self._journal.state.configuration.sources)
            self._workers.set_sites(self._site)

    def _apply(self, model: str, event: Event) -> ModelState:
        """Step a model's machine, journal it and tell the fleet."""
        with self._lock:
            state = self._journal.state
            before = state.models.get(model, ModelState())
            after = step(before, event)
            if after != before:
                self._journal.write(
                    msgspec.structs.replace(state, models={**state.models, model: after})
                )
                self._tell(model, after)
        return after

    def _tell(self, model: str, state: ModelState) -> None:
        journal = self._journal.state
        self._records.append(
            RecordKind.STATE,
            StateRecord(
                model=model,
                state=report(state),
                desired_epoch=journal.epoch,
                desired_counter=journal.counter,
            ),
        )

    def _update_turn(self, model: str) -> None:
        driver = self._drivers[model]
        driver.wake.clear()
        if self._stop.is_set():
            return
        if model in self._unjournalled:
            self._apply(model, Restarted())
            self._unjournalled.discard(model)
        state = self._journal.state.models[model]
        after = driver.turn(state)
        if after.phase in IN_MOTION:
            driver.wake.wait(MOVING_S if after == state else 0.0)
            return
        if state.phase in IN_MOTION:
            driver.bring_up(after)
            self._litter.set()
            self._configure_again()
        if self._litter.is_set():
            self._collect_garbage()
        driver.wake.wait(STILL_S)

    def _configure_again(self) -> None:
        """A configuration may have been waiting for the release that now runs."""
        with self._lock:
            if not self._journal.state.config_error:
                return
            self._journal.write(self._configured(self._journal.state))
        self._use_configuration()

    def _watch_turn(self) -> None:
        """Have a driver leave what it does when its model's inference is stuck."""
        for model, driver in list(self._drivers.items()):
            if self._workers.stuck_s(model):
                driver.wake.set()
        self._stop.wait(WATCH_S)

    def _abandon(self, model: str) -> None:
        if self._workers.abandon(model) > MAX_ABANDONED and self._fatal is None:
            self._fatal = DeviceError(
                "The agent ends, so that it can be started again.",
                why=f"{MAX_ABANDONED + 1} inferences are stuck, and their threads cannot be ended.",
                fix="Look at the driver of what runs the models; let a supervisor restart this.",
            )
            os.kill(os.getpid(), signal.SIGTERM)

    def _telemetry_turn(self) -> None:
        begun = time.monotonic()
        # In small steps: a new configuration may ask for it sooner.
        while (left := begun + self._telemetry_every() - time.monotonic()) > 0:
            if self._stop.wait(min(1.0, left)):
                return
        self._workers.report(REPORT_S)

    def _telemetry_every(self) -> float:
        return self._journal.state.configuration.telemetry_every_s

    def _record_windows(self, windows: Iterable[WindowRecord]) -> None:
        for window in windows:
            self._records.append(RecordKind.TELEMETRY, window)

    def _site(self, model: str) -> Mapping[str, Any]:
        return self._journal.state.configuration.site.get(model, {})

    def _driver(self, model: str) -> UpdateDriver:
        with self._lock:
            if model not in self._drivers:
                self._drivers[model] = UpdateDriver(
                    model,
                    store=self._store,
                    registry=self._registry,
                    capabilities=self._capabilities,
                    device=self._device,
                    hooks=self._hooks(),
                )
            return self._drivers[model]

    def _registry(self, sleep: Callable[[float], None]) -> OciClient:
        return OciClient(self._identity.config.fleet_url, self._link.auth.auth, sleep=sleep)

    def _hooks(self) -> Hooks:
        return Hooks(
            apply=self._apply,
            evidence=self._evidence,
            go_live=self._workers.go_live,
            retire=self._workers.retire,
            stuck_s=self._workers.stuck_s,
            abandon=self._abandon,
            running=self._workers.running,
            site=self._site,
            version=lambda: (self._journal.state.epoch, self._journal.state.counter),
        )

    def _evidence(self, record: Evidence) -> None:
        self._records.append(RecordKind.EVIDENCE, record)

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
            for state in self._journal.state.models.values()
            for desired in kept(state)
        ]

    def _hello(self, stream: str) -> Hello:
        state = self._journal.state
        return Hello(
            device=self._device,
            agent_version=agent_version(),
            boot_id=self._boot_id,
            counter=time.monotonic_ns(),
            stream=stream,
            capabilities=self._capabilities,
            reported=state.reported(),
            accepted=state.accepted,
        )


def _left(deadline: float) -> float:
    return max(0.05, deadline - time.monotonic())


def _only_one(path: Path) -> Any:
    """Hold a lock on the data folder for as long as the file is open.

    Raises:
        DeviceError: another agent holds it.
    """
    stream = path.open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        stream.close()
        raise DeviceError(
            f"An agent runs on {path.parent} already.",
            fix="Stop it first, or give this one a folder of its own.",
        ) from error
    return stream
