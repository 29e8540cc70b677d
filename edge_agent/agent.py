"""The agent: composes sources, workers, updates and the link to the fleet.

Three kinds of threads: one for each source, one worker for each model, and two here: the link
to the fleet, and the updates. What is shared between them is the journal's state, under one
lock.
"""

import logging
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.evidence import Evidence
from cloud_sync.messages import (
    Configuration,
    DesiredState,
    Hello,
    RecordKind,
    StateRecord,
)
from cloud_sync.messages import Window as WindowRecord
from cloud_sync.outbox import Outbox
from cloud_sync.transfer import OciClient
from edge_agent.identity import Identity
from edge_agent.link import FleetLink
from edge_agent.loaded import LoadedRelease
from edge_agent.mailbox import Frame
from edge_agent.results import ResultsFile
from edge_agent.sources import Source, open_source
from edge_agent.store import ReleaseStore
from edge_agent.update.driver import Hooks, UpdateDriver
from edge_agent.update.journal import DeviceState, Journal
from edge_agent.update.machine import (
    IN_MOTION,
    Event,
    ModelState,
    Restarted,
    Wanted,
    report,
    step,
)
from edge_agent.worker import Worker
from edgeml.errors import EdgemlError
from hardware.probes import agent_version, boot_id, probe

log = logging.getLogger(__name__)

TURN_S = 0.2
IDLE_S = 0.1


class Agent:
    """One device's daemon."""

    def __init__(self, identity: Identity) -> None:
        data = identity.data
        self._identity = identity
        self._device = identity.config.device
        self._capabilities = probe()
        self._boot_id = boot_id()
        self._lock = threading.RLock()
        self._journal = Journal(data / "state.json")
        self._store = ReleaseStore(data / "releases")
        self._outbox = Outbox(data / "outbox.db", self._device, self._boot_id)
        self._results = ResultsFile(data / "results.jsonl")
        self._workers: dict[str, Worker] = {}
        self._sources: list[Source] = []
        self._drivers: dict[str, UpdateDriver] = {}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._link = FleetLink(
            identity,
            self._outbox,
            hello=self._hello,
            state=lambda: self._journal.state,
            on_desired=self._desired,
            boot_id=self._boot_id,
        )
        self._registry = OciClient(identity.config.fleet_url, self._link.auth.auth)

    def run(self, stop: threading.Event | None = None) -> None:
        """Run until `stop` is set; everything is closed when this returns."""
        self._stop = stop or self._stop
        self._recover()
        updates = threading.Thread(target=self._update_loop, name="updates", daemon=True)
        telemetry = threading.Thread(target=self._telemetry_loop, name="telemetry", daemon=True)
        self._link.start()
        updates.start()
        telemetry.start()
        try:
            while not self._stop.is_set():
                self._link.turn(TURN_S)
        finally:
            self._stop.set()
            self._wake.set()
            for source in self._sources:
                source.stop()
            for worker in self._workers.values():
                worker.stop()
            telemetry.join(timeout=5)
            self._link.close()
            self._registry.close()
            self._results.close()

    def _recover(self) -> None:
        """Bring up what the journal says was running; then the sources."""
        for model in self._journal.state.models:
            state = self._apply(model, Restarted())
            try:
                self._driver(model).settle(state)
            except EdgemlError:
                log.exception("%s could not be brought up", model)
        self._configure(self._journal.state.configuration)

    def _desired(self, wanted: DesiredState, envelope: str) -> None:
        """Journal an accepted desired state, configuration included."""
        with self._lock:
            state = self._journal.state
            configuration, error = state.configuration, state.config_error
            changed = wanted.configuration != configuration
            if changed:
                error = check(wanted.configuration)
                configuration = configuration if error else wanted.configuration
            self._journal.write(
                msgspec.structs.replace(
                    state,
                    accepted=envelope,
                    epoch=wanted.epoch,
                    counter=wanted.counter,
                    configuration=configuration,
                    config_error=error,
                )
            )
        log.info("desired state (%s, %s) accepted", wanted.epoch, wanted.counter)
        for model, desired in wanted.models.items():
            self._apply(model, Wanted(desired=desired))
        if changed and not error:
            self._configure(configuration)
        self._wake.set()

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
        self._outbox.append(
            RecordKind.STATE,
            StateRecord(
                model=model,
                state=report(state),
                desired_epoch=journal.epoch,
                desired_counter=journal.counter,
            ),
        )

    def _update_loop(self) -> None:
        while not self._stop.is_set():
            moving = False
            for model in list(self._journal.state.models):
                state = self._journal.state.models[model]
                driver = self._driver(model)
                try:
                    driver.settle(state)
                    after = driver.advance(state)
                except EdgemlError:
                    log.exception("the update of %s failed", model)
                    continue
                moving = moving or after.phase in IN_MOTION
                if after.phase not in IN_MOTION and state.phase in IN_MOTION:
                    self._collect_garbage()
            self._wake.wait(IDLE_S if moving else 1.0)
            self._wake.clear()

    def _telemetry_loop(self) -> None:
        while not self._stop.wait(self._journal.state.configuration.telemetry_every_s):
            self._report_windows()
        self._report_windows()

    def _report_windows(self) -> None:
        for worker in list(self._workers.values()):
            self._record_windows(worker.windows())

    def _record_windows(self, windows: list[WindowRecord]) -> None:
        for window in windows:
            self._outbox.append(RecordKind.TELEMETRY, window)

    def _go_live(self, model: str, loaded: LoadedRelease) -> LoadedRelease | None:
        worker = self._workers.get(model)
        if worker is not None:
            before, windows = worker.swap(loaded)
            self._record_windows(windows)
            return before
        worker = Worker(model, loaded, self._results.write)
        self._workers[model] = worker
        worker.start()
        return None

    def _running(self, model: str) -> LoadedRelease | None:
        worker = self._workers.get(model)
        return worker.loaded if worker else None

    def _site(self, model: str) -> Mapping[str, Any]:
        return self._journal.state.configuration.site.get(model, {})

    def _driver(self, model: str) -> UpdateDriver:
        if model not in self._drivers:
            self._drivers[model] = UpdateDriver(
                model,
                store=self._store,
                registry=self._registry,
                capabilities=self._capabilities,
                device=self._device,
                hooks=Hooks(
                    apply=self._apply,
                    evidence=self._evidence,
                    go_live=self._go_live,
                    running=self._running,
                    site=self._site,
                    version=lambda: (self._journal.state.epoch, self._journal.state.counter),
                ),
            )
        return self._drivers[model]

    def _evidence(self, record: Evidence) -> None:
        self._outbox.append(RecordKind.EVIDENCE, record)

    def _configure(self, configuration: Configuration) -> None:
        """Start the sources that are configured, in place of those that run."""
        for source in self._sources:
            source.stop()
        self._sources = [
            Source(config, partial(self._deliver, config.model)) for config in configuration.sources
        ]
        for source in self._sources:
            source.start()
        for model, worker in self._workers.items():
            worker.set_site(configuration.site.get(model, {}))

    def _deliver(self, model: str, frame: Frame) -> None:
        worker = self._workers.get(model)
        if worker is not None:
            worker.mailbox.put(frame)

    def _collect_garbage(self) -> None:
        wanted = [
            (desired.release, desired.variant)
            for state in self._journal.state.models.values()
            for desired in (state.running, state.previous, state.candidate)
            if desired is not None
        ]
        try:
            self._store.keep_only(wanted)
        except EdgemlError:
            log.exception("old releases could not be removed")

    def _hello(self) -> Hello:
        state = self._journal.state
        return Hello(
            device=self._device,
            agent_version=agent_version(),
            boot_id=self._boot_id,
            stream=self._outbox.stream,
            capabilities=self._capabilities,
            reported=state.reported(),
            accepted=state.accepted,
        )


def check(configuration: Configuration) -> str:
    """Why a configuration cannot be applied here; empty where it can."""
    names = [source.name for source in configuration.sources]
    if len(set(names)) != len(names):
        return "two sources have the same name"
    for source in configuration.sources:
        try:
            open_source(source)
        except EdgemlError as error:
            return str(error)
    return ""


def status(data: Path) -> DeviceState:
    """What the journal of an agent's data folder says."""
    return Journal(data / "state.json").state
