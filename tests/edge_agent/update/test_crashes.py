"""The real update on a real disk, cut off before any of its writes: it always comes up again.

The driver, the store, the journal, the choices and onnxruntime are the product's. A crash is the
n-th change of the disk being refused, and every one after it until the "restart": no clean-up
runs, as after a `kill -9`. Only the process of the test and the
network are left out: the test runs in this process, the registry is a folder.
"""

import builtins
import contextlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Phase_
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from cloud_sync.evidence import Evidence
from cloud_sync.messages import Configuration, DesiredModel, DesiredState, Phase, TrialPolicy
from cloud_sync.release import Blobs
from cloud_sync.update_machine import IN_MOTION, Restarted, kept, live, same_release
from cloud_sync.watch import Watch
from edge_agent.choices import Choices
from edge_agent.loaded import LoadedRelease
from edge_agent.mailbox import Frame
from edge_agent.statistics import Window
from edge_agent.store import ReleaseStore
from edge_agent.testing import TestRequest, TestResult, run
from edge_agent.twin import Twin
from edge_agent.update.driver import UpdateDriver
from edge_agent.update.hooks import Hooks
from edge_agent.update.journal import Journal, read_state
from edgeml.errors import ReleaseError
from hardware.probes import probe
from tests.cloud_sync.releases import make_release

MODEL = "toy"
POLICY = TrialPolicy(soak_s=0.0, timeout_s=60.0, min_inferred=3, latency_slack_ms=1e6)
BAD = 3  # the release whose test fails
IMAGE = np.random.default_rng(2).integers(0, 256, (24, 24), np.uint8)
CAPABILITIES = probe()


class Crash(BaseException):
    """The power is gone."""


class Disk:
    """Refuses the n-th change below a folder and all after it, within `failing`."""

    _CHANGES = ("rename", "replace", "remove", "unlink", "link", "mkdir", "rmdir")

    def __init__(self, folder: Path, left: int | None) -> None:
        self._folder = str(folder)
        self._left = left
        self.crashed = False

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """The block in which it fails; what Python changes a disk with goes by it there."""
        if self._left is None:
            yield
            return
        with pytest.MonkeyPatch.context() as patch:
            for name in self._CHANGES:
                patch.setattr(os, name, self._changing(getattr(os, name)))
            patch.setattr(shutil, "rmtree", self._changing(shutil.rmtree))
            for module in (io, builtins):
                patch.setattr(module, "open", self._opening(open, _is_for_writing))
            patch.setattr(os, "open", self._opening(os.open, _has_writing_flag))
            yield

    def _changing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def changed(path: Any, *arguments: Any, **named: Any) -> Any:
            self._count(path)
            return real(path, *arguments, **named)

        return changed

    def _opening(
        self, real: Callable[..., Any], writes: Callable[[Any], bool]
    ) -> Callable[..., Any]:
        def opened(path: Any, mode: Any = "r", *arguments: Any, **named: Any) -> Any:
            if writes(mode):
                self._count(path)
            return real(path, mode, *arguments, **named)

        return opened

    def _count(self, path: Any) -> None:
        if self._left is None or not str(path).startswith(self._folder):
            return
        self._left -= 1
        if self._left < 0:
            self.crashed = True
            raise Crash


def _is_for_writing(mode: str) -> bool:
    return bool(set(mode) & set("wax+"))


def _has_writing_flag(flags: int) -> bool:
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


class FolderRegistry:
    """What the driver needs of a registry, from a folder."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def document(self, _model: str, digest: str, limit: int) -> bytes:
        return self._blobs.read(digest, limit)

    def fetch_blob(self, _model: str, digest: str, _size: int, into: Blobs, watch: Watch) -> None:
        # As the real one: bytes go to a part file, which becomes the blob when it is whole.
        data = self._blobs.path(digest).read_bytes()
        part = into.path(digest).with_name(f".{into.path(digest).name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            with part.open("ab" if half is not data else "wb") as stream:
                stream.write(half)
            watch.arrived(len(half))
        if part.stat().st_size != len(data):
            part.write_bytes(data)  # a crash had left more than half of it
        into.adopt(part, digest)

    def close(self) -> None:
        pass


class Running:
    """The agent around the driver: one model, and no threads."""

    def __init__(self, folder: Path, registry: Blobs) -> None:
        self.loaded: LoadedRelease | None = None
        self.evidence: list[Evidence] = []
        self.twin = Twin(Journal(folder / "state.json"), lambda _record: None, dict)
        self.store = ReleaseStore(folder / "releases")
        self.choices = Choices(folder / "choices.json", CAPABILITIES)
        self.driver = UpdateDriver(
            MODEL,
            store=self.store,
            registry=lambda _pause: FolderRegistry(registry),  # type: ignore[arg-type,return-value]
            capabilities=CAPABILITIES,
            choices=self.choices,
            device="cam-1",
            hooks=Hooks(
                apply=self.twin.apply,
                evidence=self.evidence.append,
                go_live=self._go_live,
                retire=self._retire,
                stuck_s=lambda _model: 0.0,
                abandon=lambda _model: None,
                running=lambda _model: self.loaded,
                site=lambda _model: {},
                version=lambda: (1, 1),
                trusted=lambda *_release: None,
            ),
            run_test=_test_here,
        )
        state = self.twin.state.models.get(MODEL)
        if state is not None:
            self.driver.bring_up(self.twin.apply(MODEL, Restarted(crashed=True)))

    def _go_live(self, _model: str, loaded: LoadedRelease) -> LoadedRelease | None:
        before, self.loaded = self.loaded, loaded
        return before

    def _retire(self, _model: str) -> LoadedRelease | None:
        before, self.loaded = self.loaded, None
        return before


def _test_here(request: TestRequest, _stop: threading.Event) -> TestResult | None:
    return run(request)


class UpdateMachine(RuleBasedStateMachine):
    """A fleet that wants releases, good and bad, and a device whose power fails at any write."""

    folder: Path
    releases: list[DesiredModel]
    registry: Blobs

    @initialize()
    def boot(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="device-", dir=self.folder))
        self.counter = 0
        self.harmless = 0
        self.committed_once = False
        self.agent = Running(self.data, self.registry)

    def teardown(self) -> None:
        if hasattr(self, "data"):
            shutil.rmtree(self.data)

    crash_at = st.one_of(st.none(), st.none(), st.integers(0, 25))

    def do(self, crash_at: int | None, work: Callable[[], object]) -> None:
        """Do some work; with a crash the device then starts again from what is on its disk."""
        disk = Disk(self.data, crash_at)
        with contextlib.suppress(Crash), disk.failing():
            work()
        if disk.crashed:
            self.agent = Running(self.data, self.registry)

    @rule(
        which=st.integers(0, 3),
        attempt=st.integers(1, 3),
        until=st.sampled_from(["", "", "prepared", "trial"]),
        crash_at=crash_at,
    )
    def want(self, which: int, attempt: int, until: str, crash_at: int | None) -> None:
        self.counter += 1
        model = self.releases[which]
        wanted = DesiredState(
            device="cam-1",
            epoch=1,
            counter=self.counter,
            issued_at=1.0,
            expires_at=2.0,
            models={MODEL: DesiredModel(**{**_fields(model), "attempt": attempt, "until": until})},
            configuration=Configuration(config_version=self.counter),
        )
        self.do(crash_at, lambda: self.agent.twin.accept(wanted, "{}"))

    @precondition(lambda self: MODEL in self.agent.twin.state.models)
    @rule(turns=st.integers(1, 6), crash_at=crash_at)
    def work(self, turns: int, crash_at: int | None) -> None:
        def some() -> None:
            for _ in range(turns):
                self.agent.driver.turn(self.agent.twin.state.models[MODEL])
                self.frames()

        self.do(crash_at, some)

    def frames(self) -> None:
        if self.agent.loaded is not None:
            for index in range(4):
                frame = Frame(source="s", index=index, captured=0.0, image=IMAGE)
                self.agent.loaded.infer(frame, Window())

    @rule(crash_at=crash_at)
    def collect_garbage(self, crash_at: int | None) -> None:
        def collect() -> None:
            states = self.agent.twin.state.models.values()
            wanted = [(d.release, d.variant) for state in states for d in kept(state)]
            # Half of a release's documents may be here; then nothing is removed.
            with contextlib.suppress(ReleaseError):
                self.agent.store.keep_only(lambda: wanted)

        self.do(crash_at, collect)

    @rule()
    def power_loss(self) -> None:
        self.agent = Running(self.data, self.registry)

    @invariant()
    def what_was_committed_runs(self) -> None:
        if not hasattr(self, "agent"):
            return
        state = self.agent.twin.state.models.get(MODEL)
        running = state.running if state else None
        self.committed_once |= running is not None
        assert (running is not None) == self.committed_once
        if state is None or running is None:
            return
        for digest in self.agent.store.needed(
            self.agent.store.variant(running.release, running.variant)
        ):
            self.agent.store.blobs.verify(digest)
        assert running.release != self.releases[BAD].release

    @invariant()
    def what_is_on_the_disk_is_what_is_in_memory(self) -> None:
        if hasattr(self, "agent"):
            assert read_state(self.data / "state.json") == self.agent.twin.state

    @invariant()
    def what_takes_frames_is_what_the_journal_says(self) -> None:
        if not hasattr(self, "agent"):
            return
        state = self.agent.twin.state.models.get(MODEL)
        wanted = live(state) if state else None
        # Between the journal's word and the driver's next turn the old one still answers.
        if state is not None and wanted is not None and state.phase not in IN_MOTION:
            self.agent.driver.bring_up(state)
        if self.agent.loaded is not None and wanted is not None and state is not None:
            assert state.phase in IN_MOTION or same_release(self.agent.loaded.desired, wanted)
        if wanted is not None and state is not None and state.phase is not Phase.TRIAL:
            assert self.agent.loaded is not None


def _fields(model: DesiredModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in model.__struct_fields__}


@pytest.mark.timeout(1200)  # a thousand sessions are opened, on whatever machine
def test_an_update_survives_a_crash_before_any_change_of_the_disk(tmp_path: Path) -> None:
    registry = Blobs(tmp_path / "registry")
    releases = []
    for number in range(4):
        layout, release = make_release(
            tmp_path / str(number), f"1.{number}.0", seed=number, spoil_recording=number == BAD
        )
        for digest in layout.blobs.all():
            registry.put_file(layout.blobs.path(digest))
        releases.append(
            DesiredModel(
                release=release.digest,
                variant=release.variants[0].digest,
                release_version=release.version,
                trial=POLICY,
            )
        )
    UpdateMachine.folder, UpdateMachine.registry = tmp_path, registry
    UpdateMachine.releases = releases
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        UpdateMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            phases=[Phase_.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
