"""The agent: composes sources, workers, updates and the link to the fleet.

Threads: one for each source, one worker for each model, and three here: the link to the
fleet, the updates, and the telemetry. What is shared between them is the journal's state,
under one lock. None of them takes the others with it: what fails is logged and goes on.
"""

import fcntl
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.evidence import Evidence
from cloud_sync.messages import DesiredState, Hello, RecordKind, StateRecord
from cloud_sync.messages import Window as WindowRecord
from cloud_sync.outbox import Outbox
from cloud_sync.transfer import OciClient
from edge_agent.configuration import Sources, problem
from edge_agent.identity import Identity
from edge_agent.link import FleetLink
from edge_agent.loaded import LoadedRelease
from edge_agent.mailbox import Frame
from edge_agent.results import ResultsFile
from edge_agent.store import ReleaseStore
from edge_agent.update.driver import Hooks, Stopped, UpdateDriver
from edge_agent.update.journal import DeviceState, Journal
from edge_agent.update.machine import (
    IN_MOTION,
    Event,
    ModelState,
    Restarted,
    Wanted,
    kept,
    report,
    step,
)
from edge_agent.worker import Worker
from edgeml.errors import DeviceError, EdgemlError
from hardware.pipeline import Pipeline
from hardware.probes import agent_version, boot_id, probe

log = logging.getLogger(__name__)

TURN_S = 0.2
MOVING_S = 0.1
STILL_S = 1.0
CLOSE_S = 1.0
AFTER_FAULT_S = 1.0


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
        self._outbox = Outbox(data / "outbox.db", self._device, self._boot_id)
        self._results = ResultsFile(data / "results.jsonl")
        self._workers: dict[str, Worker] = {}
        self._sources = Sources(self._deliver)
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
        self._registry = OciClient(
            identity.config.fleet_url, self._link.auth.auth, sleep=self._pause
        )
        self._threads = [
            threading.Thread(target=self._until_stopped, args=[turn], name=name, daemon=True)
            for name, turn in (
                ("link", lambda: self._link.turn(TURN_S)),
                ("updates", self._update_turn),
                ("telemetry", self._telemetry_turn),
            )
        ]

    def start(self) -> None:
        """Bring up what the journal says was running, then everything else."""
        for model in list(self._journal.state.models):
            state = self._apply(model, Restarted())
            # The last change may have been journalled and not recorded any more.
            self._tell(model, self._driver(model).bring_up(state))
        self._collect_garbage()
        self._sources.apply(self._journal.state.configuration.sources)
        self._link.start()
        for thread in self._threads:
            thread.start()
        log.info("%s is up", self._device)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """End everything; what does not end in time is left to the end of the process.

        Nothing is lost by that: the journal and the outbox are always whole.
        """
        deadline = time.monotonic() + timeout_s
        self._stop.set()
        self._wake.set()
        workers = list(self._workers.values())
        self._sources.stop()
        for worker in workers:
            worker.stop()
        self._sources.join(_left(deadline))
        for worker in workers:
            worker.join(_left(deadline))
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_left(deadline))
        self._guarded(self._report_windows)
        goodbye = threading.Thread(target=self._link.close, name="goodbye", daemon=True)
        goodbye.start()
        goodbye.join(_left(deadline))
        if goodbye.is_alive() or any(thread.is_alive() for thread in self._threads):
            return
        self._registry.close()
        self._outbox.close()
        self._results.close()
        self._only.close()

    def run(self, wait: Callable[[], None]) -> None:
        """Run until `wait` returns; then end within two seconds."""
        try:
            self.start()
            wait()
        finally:
            self.close()

    def _until_stopped(self, turn: Callable[[], None]) -> None:
        while not self._stop.is_set():
            if not self._guarded(turn):
                self._stop.wait(AFTER_FAULT_S)

    def _guarded(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Stopped:
            pass
        except EdgemlError as error:
            log.error("%s", error)  # noqa: TRY400 -- the sentence says it all
            return False
        except Exception:
            # A fault of ours in one thread must not silence the device.
            log.exception("an unexpected fault")
            return False
        return True

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def _desired(self, wanted: DesiredState, envelope: str) -> None:
        """Journal an accepted desired state, all of it at once, and begin to act on it."""
        with self._lock:
            state = self._journal.state
            before = state.models
            after = dict(before) | {
                model: step(before.get(model, ModelState()), Wanted(desired=desired))
                for model, desired in wanted.models.items()
            }
            state = msgspec.structs.replace(
                state,
                accepted=envelope,
                epoch=wanted.epoch,
                counter=wanted.counter,
                wanted=wanted.configuration,
                models=after,
            )
            self._journal.write(self._configured(state))
            for model in wanted.models:
                if after[model] != before.get(model):
                    self._tell(model, after[model])
            self._use_configuration()
        log.info("desired state (%s, %s) accepted", wanted.epoch, wanted.counter)
        self._wake.set()

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
        for model, worker in list(self._workers.items()):
            warm = self._driver(model).warm
            found[model] = [r.pipeline for r in (worker.loaded, warm) if r is not None]
        return found

    def _use_configuration(self) -> None:
        """Let sources and workers follow the configuration that the journal holds."""
        configuration = self._journal.state.configuration
        self._sources.apply(configuration.sources)
        for model, worker in list(self._workers.items()):
            self._guarded(partial(worker.set_site, self._site(model)))

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
        self._append(
            RecordKind.STATE,
            StateRecord(
                model=model,
                state=report(state),
                desired_epoch=journal.epoch,
                desired_counter=journal.counter,
            ),
        )

    def _append(self, kind: RecordKind, body: msgspec.Struct) -> None:
        try:
            self._outbox.append(kind, body)
        except DeviceError as error:
            # A full disk silences the device; it must not stop it.
            log.error("a record of kind %s is lost: %s", kind, error)  # noqa: TRY400

    def _update_turn(self) -> None:
        pause = STILL_S
        for model, state in list(self._journal.state.models.items()):
            after = self._driver(model).turn(state)
            if after.phase in IN_MOTION:
                pause = min(pause, MOVING_S if after == state else 0.0)
            if after.phase not in IN_MOTION and state.phase in IN_MOTION:
                self._driver(model).bring_up(after)
                self._after_update()
        self._wake.wait(pause)
        self._wake.clear()

    def _after_update(self) -> None:
        self._collect_garbage()
        with self._lock:
            if self._journal.state.config_error:
                # It may have been waiting for the release that now runs.
                self._journal.write(self._configured(self._journal.state))
                self._use_configuration()

    def _telemetry_turn(self) -> None:
        begun = time.monotonic()
        # In small steps: a new configuration may ask for it sooner.
        while (left := begun + self._telemetry_every() - time.monotonic()) > 0:
            if self._stop.wait(min(1.0, left)):
                return
        self._report_windows()

    def _telemetry_every(self) -> float:
        return self._journal.state.configuration.telemetry_every_s

    def _report_windows(self) -> None:
        for worker in list(self._workers.values()):
            self._record_windows(worker.windows())

    def _record_windows(self, windows: list[WindowRecord]) -> None:
        for window in windows:
            self._append(RecordKind.TELEMETRY, window)

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

    def _retire(self, model: str) -> LoadedRelease | None:
        worker = self._workers.pop(model, None)
        if worker is None:
            return None
        worker.stop()
        worker.join()
        self._record_windows(worker.windows())
        return worker.loaded

    def _running(self, model: str) -> LoadedRelease | None:
        worker = self._workers.get(model)
        return worker.loaded if worker else None

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
                    stop=self._stop,
                )
            return self._drivers[model]

    def _hooks(self) -> Hooks:
        return Hooks(
            apply=self._apply,
            evidence=self._evidence,
            go_live=self._go_live,
            retire=self._retire,
            running=self._running,
            site=self._site,
            version=lambda: (self._journal.state.epoch, self._journal.state.counter),
        )

    def _evidence(self, record: Evidence) -> None:
        self._append(RecordKind.EVIDENCE, record)

    def _deliver(self, model: str, frame: Frame) -> None:
        worker = self._workers.get(model)
        if worker is not None:
            worker.mailbox.put(frame)

    def _collect_garbage(self) -> None:
        wanted = [
            (desired.release, desired.variant)
            for state in self._journal.state.models.values()
            for desired in kept(state)
        ]
        try:
            removed = self._store.keep_only(wanted)
        except (EdgemlError, OSError) as error:
            log.warning("old releases were not removed: %s", error)
            return
        if removed:
            log.info("%d files of old releases were removed", removed)

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
