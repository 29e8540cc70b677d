"""The agent: composes sources, workers, updates and the link to the fleet.

Threads: one for each source, for each model a worker and one for its updates, and three here:
the link to the fleet, the telemetry, and the watch over stuck inference. What is shared between
them is the journal's state, under one lock, which nobody holds while waiting for a frame. None
of them takes the others with it: what fails is logged and goes on.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from cloud_sync.evidence import Evidence
from cloud_sync.messages import (
    DesiredState,
    Hello,
    RecordKind,
    SecurityKind,
    SecurityRecord,
    StateRecord,
)
from cloud_sync.messages import Window as WindowRecord
from cloud_sync.update_machine import FEATURES, IN_MOTION, Steady, blamed
from cloud_sync.windows import closed
from edge_agent.captured import CapturedFrames
from edge_agent.choices import Choices
from edge_agent.ending import Ending, only_one
from edge_agent.following import Following
from edge_agent.health import STEADY_S, Health, Marker
from edge_agent.heat import celsius
from edge_agent.loops import LOOP_S, Loops, guarded, left
from edge_agent.records import Records
from edge_agent.remote.commands import Commands
from edge_agent.resources import take_place, use_proxy
from edge_agent.results import ResultsFile
from edge_agent.sample_upload import Days, SampleUpload, at_work
from edge_agent.spending import Spending
from edge_agent.systemd import notify
from edge_agent.trust.release_trust import ReleaseCheck
from edge_agent.twin import Twin
from edge_agent.update.hooks import Hooks
from edge_agent.update.journal import Journal
from edge_agent.updates import Updates
from edge_agent.workers import Workers
from edgeml.errors import RemoteError

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from cloud_sync.outbox import Outbox
    from edge_agent.api.opening import Opening
    from edge_agent.api.options import ApiOptions
    from edge_agent.api.server import LocalApi
    from edge_agent.importing import Importing
    from edge_agent.link import FleetLink
    from edge_agent.registries import Registries, RegistrySettings
    from edge_agent.store import ReleaseStore
    from edge_agent.trust.identity import Identity
    from edge_agent.update.deltas import Deltas
    from hardware.pipeline import Pipeline

log = logging.getLogger(__name__)

TURN_S = 0.2
CLOSE_S = 1.0
WATCH_S = 0.5
REPORT_S = 1.0
MAX_ABANDONED = 2
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
        use_proxy(identity.config.proxy)
        from hardware.probes import EnergyMeter, boot_id, probe

        data = identity.data
        self._identity = identity
        self._device = identity.config.device
        self._only = only_one(data / "agent.lock")
        self._capabilities = probe()
        self._boot_id = boot_id()
        self._twin = Twin(Journal(data / "state.json"), self._changed, self._pipelines)
        self._records = Records(self._open_outbox)
        self._marker = Marker(data / "running", self._boot_id)
        self._up_since = time.monotonic()
        self._is_steady = False
        self._results = ResultsFile(data / "results.jsonl")
        self._energy = EnergyMeter()
        self._captured = CapturedFrames(data / "captured", lambda: self._twin.configuration.capture)
        self._workers = Workers(
            self._results.write,
            self._record_windows,
            self._energy.joules,
            celsius,
            self._captured.offer,
        )
        self._following = Following(self._twin, self._workers, self._results.write)
        self._stop = threading.Event()
        self._ending = Ending()
        from edge_agent.trust.director import Director

        self._director = Director(
            identity,
            lambda: self._twin.state,
            lambda root: self._trusted.ready(root),  # noqa: PLW0108 -- made further down
            self._refused,
        )
        self._commands = Commands(
            identity,
            self._capabilities,
            self._records,
            opened=self._director.command,
            now=self._director.now,
            proven=self._proven,
            tap=self._following.tap,
            sources=self._following.sources.reported,
            restart=self._ending.restart,
            wipe=self._begin_wiping,
        )
        self._link: FleetLink | None = None
        self._spending = Spending(
            data / "ledger.db",
            budget=lambda: self._twin.configuration.data_budget,
            now=lambda: max(time.time(), self._proven()),
            tell=partial(self._records.append, RecordKind.LEDGER),
        )
        self._trusted = ReleaseCheck(
            identity,
            self._credentials,
            self._proven,
            self._refused,
            self._spending.trust,
            root=lambda: self._director.root,
            now=self._director.clock.of_tls,
        )
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
            ledger=self._spending.ledger,
            deltas=self._deltas,
        )
        self._upload = SampleUpload(
            data / "captured",
            Days(data / "samples.json", self._spending.now),
            policies=lambda: self._twin.configuration.capture,
            is_busy=lambda: at_work(self._twin.state, self._closed),
            connect=lambda meter: self._link.another(meter) if self._link else None,
            ledger=self._spending.ledger,
            now=self._spending.now,
            stop=self._stop,
        )
        self._importing: Importing | None = None
        self._loops = Loops(self._stop)
        self._health = Health(
            self._loops.beats,
            ceiling=identity.config.memory_mb << 20,
            set_duty=self._workers.set_duty,
            renew=self._updates.renew,
            give_up=self._ending.give_up,
        )
        self._api = self._local_api(api)
        self._opening = _opening(self._api)

    def _open_outbox(self) -> "Outbox":
        from cloud_sync.outbox import Outbox

        return Outbox(self._identity.data / "outbox.db", self._device, self._boot_id)

    def _link_turn(self) -> None:
        if self._link is None:
            # Its imports would take the interpreter from the first inference.
            self._wait_for_an_answer(FIRST_S)
            self._link = self._fleet_link()
            self._link.start()
            # All is imported now: what was stays, and no frame need wait for a search through it.
            gc.freeze()
        self._link.turn(TURN_S)
        self._spending.turn()

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
            self._director,
            lambda: self._records.outbox,
            hello=self._hello,
            state=lambda: self._twin.state,
            on_desired=self._desired,
            on_command=lambda envelope, asked: self._commands.take(envelope, asked=asked),
            boot_id=self._boot_id,
            meter=self._spending.link,
            hold_telemetry=self._spending.holds_telemetry,
        )

    def _import_turn(self) -> None:
        if self._importing is None:
            folder = self._identity.data / "import"
            if not any((folder / name).exists() for name in ("waiting", "taken")):
                self._stop.wait(WATCH_S)
                return
            from edge_agent.importing import Importing

            self._importing = Importing(
                self._identity.data,
                self._updates.store,
                self._capabilities,
                judge=self._judge_brought,
                trusted=self._trusted.check_in,
                accept=self._desired,
                tell=self._refused,
                stop=self._stop,
            )
        self._importing.turn()

    def _judge_brought(self, envelope: bytes, trust: "Path") -> DesiredState:
        return self._director.brought(envelope, partial(self._trusted.brought, trust))

    def _deltas(self, store: "ReleaseStore") -> "Deltas":
        from edge_agent.update.deltas import Deltas

        def ask(digest: str) -> bytes | None:
            return None if self._link is None else self._link.auth.deltas(digest)

        return Deltas(store, ask)

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
            guarded(partial(self._updates.bring_up, model, crashed=model in crashed))
        self._updates.littered()
        guarded(self._twin.restarted)
        self._following.use()
        if self._opening is not None:
            self._opening.turn()
        for name, turn in (
            ("link", self._link_turn),
            ("telemetry", self._telemetry_turn),
            ("watch", self._watch_turn),
            ("commands", self._commands.turn),
            ("import", self._import_turn),
        ):
            self._loops.begin(name, turn)
        self._loops.begin("samples", self._upload.turn, UPDATE_S)  # a slow link is no fault
        for model in models:
            self._begin_updates(model)
        log.info("%s is up", self._device)
        notify(ready=True, status=f"{self._device} runs {len(models)} models")

    def _begin_updates(self, model: str) -> None:
        turn = partial(self._updates.turn, model)
        self._loops.begin(f"updates-{model}", turn, UPDATE_S)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """End everything; what does not end in time is left to the end of the process.

        Nothing is lost by that: the journal and the outbox are always whole.
        """
        deadline = time.monotonic() + timeout_s
        notify(stopping=True)
        self._stop.set()
        if self._ending.fatal is None:
            self._marker.clear()
        self._updates.stop()
        self._upload.cut()
        self._following.sources.stop()
        self._workers.stop()
        self._following.sources.join(left(deadline))
        self._workers.join(deadline)
        self._loops.join(deadline)
        if self._api is not None:
            self._api.close(left(deadline))
        guarded(lambda: self._workers.report(0.0))
        link = self._link
        goodbye = threading.Thread(
            target=link.close if link else _nothing, name="goodbye", daemon=True
        )
        goodbye.start()
        goodbye.join(left(deadline))
        if goodbye.is_alive() or self._loops.alive:
            self._spending.end()
            return
        self._updates.close()
        self._upload.close()
        self._trusted.close()
        self._spending.close()
        self._commands.close()
        self._records.close()
        self._results.close()
        self._captured.close()
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
        if (why := self._ending.fatal or self._ending.again) is not None:
            raise why

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
            self._ending.give_up(
                f"{number} inferences are stuck, and their threads cannot be ended"
            )

    def _begin_wiping(self) -> None:
        """End, and let whoever runs this wipe the device's data when nothing uses it any more."""
        from edge_agent.wiping import begin

        begin(self._identity.data)
        self._ending.restart()

    def _telemetry_turn(self) -> None:
        begun = time.monotonic()
        # In small steps: a new configuration may ask for it sooner.
        while (left := begun + self._telemetry_every() - time.monotonic()) > 0:
            self._loops.beats.beat("telemetry", LOOP_S)
            self._energy.joules()  # a sensor of power is asked often
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

    def _registry(self, sleep: Callable[[float], None]) -> "Registries":
        from edge_agent.registries import Registries
        from edge_agent.registry_login import credentials

        link = self._link
        if link is None:
            raise RemoteError("The fleet is not asked yet.", why="The agent has just come up.")
        return Registries(
            self._registry_settings,
            link.auth.auth,
            mirror_auth=credentials(self._identity.data),
            on_lie=self._lied,
            sleep=sleep,
            now=self._director.clock.of_tls,
        )

    def _registry_settings(self) -> "RegistrySettings":
        from edge_agent.registries import RegistrySettings

        own, wanted = self._identity.config, self._twin.configuration
        return RegistrySettings(
            fleet_url=own.fleet_url,
            mirrors=(*wanted.mirrors, *own.mirrors),
            max_bytes_s=wanted.max_download_bytes_s,
        )

    def _lied(self, registry: str, what: str) -> None:
        self._refused(
            SecurityRecord(
                kind=SecurityKind.LYING_REGISTRY, model="", release="", detail=f"{registry}: {what}"
            )
        )

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
            now=self._director.now,
            closed=self._closed,
        )

    def _closed(self) -> str:
        """Why no update may go on now; what is tried already says when."""
        windows = self._twin.configuration.update_windows
        if not windows:
            return ""
        now = self._director.now()
        if now is None:
            now = max(time.time(), self._proven())
        return closed(windows, now, time.localtime(now).tm_gmtoff)

    def _credentials(self) -> "httpx.Auth | None":
        return None if self._link is None else self._link.auth.auth

    def _proven(self) -> float:
        return self._director.clock.floor()

    def _refused(self, record: SecurityRecord) -> None:
        self._records.append(RecordKind.SECURITY, record)

    def _changed(self, record: StateRecord) -> None:
        if record.state.phase not in IN_MOTION:
            self._spending.soon()
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
            utc_offset_s=time.localtime().tm_gmtoff,
            features=FEATURES,
        )


def _opening(api: "LocalApi | None") -> "Opening | None":
    if api is None:
        return None
    from edge_agent.api.opening import Opening

    return Opening(api)


def _nothing() -> None:
    """There is nobody to say goodbye to."""
