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
from typing import TYPE_CHECKING, Any

import msgspec

from cloud_sync.evidence import Evidence
from cloud_sync.messages import (
    DesiredState,
    Hello,
    RecordKind,
    SecurityRecord,
    StateRecord,
)
from cloud_sync.messages import Window as WindowRecord
from edge_agent.choices import Choices
from edge_agent.following import Following
from edge_agent.health import STEADY_S, Beats, Health, Marker
from edge_agent.records import Records
from edge_agent.release_trust import ReleaseCheck
from edge_agent.resources import take_place
from edge_agent.results import ResultsFile
from edge_agent.systemd import notify
from edge_agent.twin import Twin
from edge_agent.update.fetching import Interrupted
from edge_agent.update.hooks import Hooks
from edge_agent.update.journal import Journal
from edge_agent.update.machine import Steady, blamed
from edge_agent.updates import Updates
from edge_agent.workers import Workers
from edgeml.errors import DeviceError, EdgemlError, RemoteError

if TYPE_CHECKING:
    import httpx

    from cloud_sync.outbox import Outbox
    from cloud_sync.transfer import OciClient
    from edge_agent.api.opening import Opening
    from edge_agent.api.options import ApiOptions
    from edge_agent.api.server import LocalApi
    from edge_agent.identity import Identity
    from edge_agent.link import FleetLink
    from hardware.pipeline import Pipeline

log = logging.getLogger(__name__)

TURN_S = 0.2
CLOSE_S = 1.0
AFTER_FAULT_S = 1.0
WATCH_S = 0.5
REPORT_S = 1.0
MAX_ABANDONED = 2
# How long a loop may take for a turn before the watchdog outside is left without word.
LOOP_S = 300.0
UPDATE_S = 3600.0
FIRST_S = 2.0
WAIT_S = 0.05


class Agent:
    """One device's daemon.

    Args:
        identity: who it is.
        api: where it serves the local API; nowhere, by default.

    Raises:
        DeviceError: another agent runs on its folder, or the state file is damaged.
        UserError: something of the identity or the API's options cannot be used.
    """

    def __init__(self, identity: "Identity", api: "ApiOptions | None" = None) -> None:
        # First: imports may start threads, which inherit it.
        take_place(identity.config.nice, identity.config.cpus)
        from hardware.probes import boot_id, probe

        data = identity.data
        self._identity = identity
        self._device = identity.config.device
        self._only = _only_one(data / "agent.lock")
        self._capabilities = probe()
        self._boot_id = boot_id()
        self._twin = Twin(Journal(data / "state.json"), self._changed, self._pipelines)
        self._records = Records(self._open_outbox)
        self._marker = Marker(data / "running", self._boot_id)
        self._up_since = time.monotonic()
        self._is_steady = False
        self._results = ResultsFile(data / "results.jsonl")
        self._workers = Workers(self._results.write, self._record_windows)
        self._following = Following(self._twin, self._workers, self._results.write)
        self._stop = threading.Event()
        self._fatal: DeviceError | None = None
        self._link: FleetLink | None = None
        self._trusted = ReleaseCheck(identity, self._credentials, self._proven, self._refused)
        self._updates = Updates(
            identity,
            self._twin,
            self._following,
            capabilities=self._capabilities,
            choices=Choices(
                data / "choices.json",
                self._capabilities,
                threads=identity.config.threads,
                spin=identity.config.spin,
            ),
            registry=self._registry,
            hooks=self._hooks(),
        )
        self._beats = Beats()
        self._health = Health(
            self._beats,
            ceiling=identity.config.memory_mb << 20,
            set_duty=self._workers.set_duty,
            renew=self._updates.renew,
            give_up=self._give_up,
        )
        self._api = self._local_api(api)
        self._opening = _opening(self._api)
        self._threads = [
            self._thread("link", self._link_turn),
            self._thread("telemetry", self._telemetry_turn),
            self._thread("watch", self._watch_turn),
        ]

    def _open_outbox(self) -> "Outbox":
        from cloud_sync.outbox import Outbox

        return Outbox(self._identity.data / "outbox.db", self._device, self._boot_id)

    def _link_turn(self) -> None:
        if self._link is None:
            # Its imports would take the interpreter from the first inference.
            self._wait_for_an_answer(FIRST_S)
            self._link = self._fleet_link()
            self._link.start()
        self._link.turn(TURN_S)

    def _wait_for_an_answer(self, at_most_s: float) -> None:
        deadline = time.monotonic() + at_most_s
        while time.monotonic() < deadline and not self._stop.wait(WAIT_S):
            answered = self._workers.answered().values()
            if not answered or any(map(sum, answered)):
                return

    def _fleet_link(self) -> "FleetLink":
        from edge_agent.link import FleetLink

        return FleetLink(
            self._identity,
            lambda: self._records.outbox,
            hello=self._hello,
            state=lambda: self._twin.state,
            on_desired=self._desired,
            boot_id=self._boot_id,
        )

    def _local_api(self, options: "ApiOptions | None") -> "LocalApi | None":
        if options is None:
            return None
        from edge_agent.api.server import LocalApi

        sources = self._following.sources
        return LocalApi(
            options,
            self._workers,
            device=self._device,
            push=sources.push_source,
            sources=sources.reported,
        )

    def start(self) -> None:
        """Bring up what the journal says was running, then everything else."""
        models = list(self._twin.state.models)
        crashed = blamed(self._twin.state.models) if self._marker.crashed else frozenset()
        self._marker.set()
        for model in models:
            self._guarded(partial(self._updates.bring_up, model, crashed=model in crashed))
        self._updates.littered()
        self._guarded(self._twin.restarted)
        self._following.use()
        if self._opening is not None:
            self._opening.turn()
        for thread in list(self._threads):
            thread.start()
        for model in models:
            self._begin_updates(model)
        log.info("%s is up", self._device)
        notify(ready=True, status=f"{self._device} runs {len(models)} models")

    def _begin_updates(self, model: str) -> None:
        turn = partial(self._updates.turn, model)
        thread = self._thread(f"updates-{model}", turn, UPDATE_S)
        self._threads.append(thread)
        thread.start()

    def _thread(
        self, name: str, turn: Callable[[], None], allowed_s: float = LOOP_S
    ) -> threading.Thread:
        return threading.Thread(
            target=self._until_stopped, args=[name, turn, allowed_s], name=name, daemon=True
        )

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """End everything; what does not end in time is left to the end of the process.

        Nothing is lost by that: the journal and the outbox are always whole.
        """
        deadline = time.monotonic() + timeout_s
        notify(stopping=True)
        self._stop.set()
        if self._fatal is None:
            self._marker.clear()
        self._updates.stop()
        self._following.sources.stop()
        self._workers.stop()
        self._following.sources.join(_left(deadline))
        self._workers.join(deadline)
        for thread in list(self._threads):
            if thread.ident is not None:
                thread.join(_left(deadline))
        if self._api is not None:
            self._api.close(_left(deadline))
        self._guarded(lambda: self._workers.report(0.0))
        link = self._link
        goodbye = threading.Thread(
            target=link.close if link else _nothing, name="goodbye", daemon=True
        )
        goodbye.start()
        goodbye.join(_left(deadline))
        if goodbye.is_alive() or any(thread.is_alive() for thread in self._threads):
            return
        self._updates.close()
        self._trusted.close()
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

    def _until_stopped(self, name: str, turn: Callable[[], None], allowed_s: float) -> None:
        while not self._stop.is_set():
            self._beats.beat(name, allowed_s)
            if not self._guarded(turn):
                self._stop.wait(AFTER_FAULT_S)
        self._beats.end(name)

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
        """Take an accepted desired state and begin to act on it."""
        changed = self._twin.accept(wanted, envelope)
        self._following.use()
        log.info("desired state (%s, %s) accepted", wanted.epoch, wanted.counter)
        if changed:
            self._updates.littered()
        for model in changed:
            if not self._updates.wake(model):
                self._begin_updates(model)

    def _pipelines(self) -> "Mapping[str, list[Pipeline]]":
        return self._updates.pipelines()

    def _watch_turn(self) -> None:
        """Have a driver leave what it does when its model's inference is stuck."""
        for model in self._updates.models:
            if self._workers.stuck_s(model):
                self._updates.wake(model)
        self._following.turn()
        self._health.turn()
        if self._opening is not None:
            self._opening.turn()
        if not self._is_steady and time.monotonic() >= self._up_since + STEADY_S:
            for model in self._updates.models:
                self._twin.apply(model, Steady())
            self._is_steady = True
        self._stop.wait(WATCH_S)

    def _abandon(self, model: str) -> None:
        if self._workers.abandon(model) > MAX_ABANDONED:
            number = MAX_ABANDONED + 1
            self._give_up(f"{number} inferences are stuck, and their threads cannot be ended")

    def _give_up(self, why: str) -> None:
        """End the process for whoever started it; also where no signal would be handled."""
        if self._fatal is None:
            self._fatal = DeviceError(
                "The agent ends, so that it can be started again.",
                why=f"{why}.",
                fix="Look at the driver of what runs the models; let a supervisor restart this.",
            )
            os.kill(os.getpid(), signal.SIGTERM)

    def _telemetry_turn(self) -> None:
        begun = time.monotonic()
        # In small steps: a new configuration may ask for it sooner.
        while (left := begun + self._telemetry_every() - time.monotonic()) > 0:
            self._beats.beat("telemetry", LOOP_S)
            if self._stop.wait(min(1.0, left)):
                return
        self._workers.report(REPORT_S)

    def _telemetry_every(self) -> float:
        return self._twin.configuration.telemetry_every_s

    def _record_windows(self, windows: Iterable[WindowRecord]) -> None:
        for window in windows:
            self._records.append(RecordKind.TELEMETRY, window)
            if self._api is not None:
                self._api.count(window)

    def _registry(self, sleep: Callable[[float], None]) -> "OciClient":
        from cloud_sync.transfer import OciClient

        link = self._link
        if link is None:
            raise RemoteError("The fleet is not asked yet.", why="The agent has just come up.")
        return OciClient(self._identity.config.fleet_url, link.auth.auth, sleep=sleep)

    def _hooks(self) -> Hooks:
        return Hooks(
            apply=self._twin.apply,
            evidence=self._evidence,
            go_live=self._workers.go_live,
            retire=self._workers.retire,
            stuck_s=self._workers.stuck_s,
            abandon=self._abandon,
            running=self._workers.running,
            site=self._following.site,
            version=lambda: (self._twin.state.epoch, self._twin.state.counter),
            trusted=self._trusted,
        )

    def _credentials(self) -> "httpx.Auth | None":
        return None if self._link is None else self._link.auth.auth

    def _proven(self) -> float:
        return max(self._twin.state.proven, self._identity.enrolled_at)

    def _refused(self, record: SecurityRecord) -> None:
        self._records.append(RecordKind.SECURITY, record)

    def _changed(self, record: StateRecord) -> None:
        self._records.append(RecordKind.STATE, record)

    def _evidence(self, record: Evidence) -> None:
        self._records.append(RecordKind.EVIDENCE, record)

    def _hello(self, stream: str) -> Hello:
        from hardware.probes import agent_version

        state = self._twin.state
        return Hello(
            device=self._device,
            agent_version=agent_version(),
            boot_id=self._boot_id,
            counter=time.monotonic_ns(),
            stream=stream,
            capabilities=self._capabilities,
            reported=msgspec.structs.replace(
                state.reported(), sources=self._following.sources.reported()
            ),
            accepted=state.accepted,
        )


def _opening(api: "LocalApi | None") -> "Opening | None":
    if api is None:
        return None
    from edge_agent.api.opening import Opening

    return Opening(api)


def _nothing() -> None:
    """There is nobody to say goodbye to."""


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
