"""Does the work that a model's update is due: resolve, download, verify, test, try, commit.

The thin shell around `machine`: each `turn` makes what takes frames be what the state says,
does one phase's work and journals what followed. Each model's driver has a thread of its own;
inference goes on meanwhile, and so does every other model's update. What takes long is left as
soon as `wake` is set: the agent ends, the fleet wants something else, or the inference is stuck.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cloud_sync.evidence import Evidence, GateResult, Verdict, combined
from cloud_sync.messages import DesiredModel, Phase
from cloud_sync.release import Release, Variant, read_release, resolve
from cloud_sync.transfer import OciClient
from edge_agent.failpoints import reach
from edge_agent.loaded import LoadedRelease, choose_runtime, load
from edge_agent.store import ReleaseStore
from edge_agent.testing import TestRequest, run_child
from edge_agent.trial import MIN_BASELINE, is_enough, judge, stuck
from edge_agent.update.evidence import Subject, as_baseline, live_result, of_test, of_trial
from edge_agent.update.machine import (
    IN_MOTION,
    Baseline,
    Broken,
    Done,
    Event,
    Fail,
    ModelState,
    Refuse,
    live,
    same_release,
)
from edgeml.errors import DeviceError, EdgemlError, ModelError, ReleaseError, RemoteError
from hardware.capabilities import Capabilities

log = logging.getLogger(__name__)

RETRY_S = (1.0, 60.0)
CORRUPT_ATTEMPTS = 2
_OF_THE_PROCESS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC})


class Interrupted(Exception):  # noqa: N818 -- no error: something else is due first
    """The work is left as it is; where it is still due, the next turn goes on with it."""


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver asks of the agent around it."""

    apply: Callable[[str, Event], ModelState]
    evidence: Callable[[Evidence], None]
    go_live: Callable[[str, LoadedRelease], LoadedRelease | None]
    retire: Callable[[str], LoadedRelease | None]
    stuck_s: Callable[[str], float]
    abandon: Callable[[str], None]
    running: Callable[[str], LoadedRelease | None]
    site: Callable[[str], Mapping[str, Any]]
    version: Callable[[], tuple[int, int]]


class UpdateDriver:
    """One model's update.

    Attributes:
        model: the model.
        wake: set by others to have the next turn at once; its thread clears it.
    """

    def __init__(
        self,
        model: str,
        *,
        store: ReleaseStore,
        registry: Callable[[Callable[[float], None]], OciClient],
        capabilities: Capabilities,
        device: str,
        hooks: Hooks,
    ) -> None:
        self.model = model
        self.wake = threading.Event()
        self._store = store
        self._registry = registry(self._pause)
        self._capabilities = capabilities
        self._device = device
        self._hooks = hooks
        self._warm: LoadedRelease | None = None
        self._trial_began = 0.0
        self._about: tuple[DesiredModel | None, Phase] = (None, Phase.IDLE)
        self._retry_at = 0.0
        self._retry = RETRY_S[0]
        self._corrupt = 0
        self._last_error = ""

    @property
    def warm(self) -> LoadedRelease | None:
        """The release before, still loaded while a trial lasts."""
        return self._warm

    def turn(self, state: ModelState) -> ModelState:
        """Do what is due in this state, if anything, and return the state after it."""
        if self._about != (state.candidate, state.phase):
            self._about = (state.candidate, state.phase)
            self._retry, self._retry_at, self._corrupt = RETRY_S[0], 0.0, 0
        if time.monotonic() < self._retry_at and not self._hooks.stuck_s(self.model):
            return state
        after = self.bring_up(state)
        if after != state or time.monotonic() < self._retry_at:
            return after
        return self._advance(after)

    def bring_up(self, state: ModelState) -> ModelState:
        """Make what takes frames be what the state says; what cannot be loaded is given up."""
        try:
            self._settle(state)
        except (ModelError, ReleaseError) as error:
            return self._cannot_run(state, error)
        except OSError as error:
            unreadable = DeviceError("Its files cannot be read.", why=f"{error}.")
            nothing_else = state.previous is None and state.phase not in IN_MOTION
            if nothing_else or error.errno in _OF_THE_PROCESS:
                self._wait(unreadable)
            else:
                return self._cannot_run(state, unreadable)
        except EdgemlError as error:
            self._wait(error)
        return state

    def close(self) -> None:
        """Close the connections."""
        self._registry.close()

    def _settle(self, state: ModelState) -> None:
        wanted = live(state)
        trial = state.phase is Phase.TRIAL
        if not trial and self._hooks.stuck_s(self.model):
            self._hooks.abandon(self.model)
        running = self._hooks.running(self.model)
        if wanted is None:
            self._close(self._hooks.retire(self.model))
        elif running is not None and same_release(running.desired, wanted):
            running.desired = wanted
        else:
            loaded = self._ready(wanted, trial=trial)
            reach("swap")
            before = self._hooks.go_live(self.model, loaded)
            reach("swapped")
            if trial:
                self._close(self._warm)
                self._warm = before
                self._trial_began = time.monotonic()
            else:
                self._close(before)
        if not trial:
            self._close(self._warm)
            self._warm = None
            self._trial_began = 0.0

    def _ready(self, wanted: DesiredModel, *, trial: bool) -> LoadedRelease:
        site = self._hooks.site(self.model)
        warm = self._warm
        if warm is not None and same_release(warm.desired, wanted):
            self._warm = None
            warm.desired = wanted
            try:
                warm.set_site(site)
            except ModelError as error:
                log.warning("%s keeps the site parameters it had: %s", self.model, error)
            return warm
        try:
            return load(self._store, wanted, site)
        except ModelError:
            if trial or not site:
                raise
            # What was committed must come up, whatever was configured for another release.
            return load(self._store, wanted, {})

    def _cannot_run(self, state: ModelState, error: EdgemlError) -> ModelState:
        wanted = live(state)
        assert wanted is not None
        log.error("%s %s cannot be run: %s", self.model, wanted.release_version, error)
        if state.phase is Phase.TRIAL:
            return self._apply(Fail(about=wanted, reason=f"it cannot be loaded: {error}"))
        self._remove_damaged(wanted)
        return self._apply(Broken(about=wanted, reason=f"it cannot be loaded any more: {error}"))

    def _remove_damaged(self, desired: DesiredModel) -> None:
        """Remove what is damaged of a release, so that it is fetched when it is wanted again."""
        try:
            for digest in self._store.needed(self._store.variant(desired.release, desired.variant)):
                self._store.check(digest)
        except (ReleaseError, OSError) as error:
            log.warning("%s: %s", self.model, error)

    def _advance(self, state: ModelState) -> ModelState:
        desired = state.candidate
        work = {
            Phase.RESOLVING: self._resolve,
            Phase.DOWNLOADING: self._download,
            Phase.VERIFYING: self._verify,
            Phase.TESTING: self._test,
            Phase.TRIAL: self._try,
        }.get(state.phase)
        if work is None or desired is None:
            return state
        reach(f"work-{state.phase}")
        try:
            with self._store.in_use():
                event = work(state, desired)
        except RemoteError as error:
            self._wait(error)
            return state
        except OSError as error:
            self._wait(DeviceError("The disk cannot be used.", why=f"{error}."))
            return state
        except ReleaseError as error:
            return self._damaged(state, desired, error)
        except EdgemlError as error:
            event = Refuse(about=desired, reason=str(error))
        if event is None:
            return state
        return self._apply(event)

    def _apply(self, event: Event) -> ModelState:
        state = self._hooks.apply(self.model, event)
        if state.phase in {Phase.COMMITTED, Phase.ROLLED_BACK, Phase.REFUSED}:
            log.info("%s: %s %s", self.model, state.phase, state.reason)
        return state

    def _resolve(self, _state: ModelState, desired: DesiredModel) -> Event:
        release = self._fetch_documents(desired)
        if release.model != self.model:
            return Refuse(
                about=desired, reason=f"the release is {release.name}, wanted is {self.model}"
            )
        found = resolve(release, self._capabilities)
        if found.variant is None:
            return Refuse(about=desired, reason=found.reason)
        if found.variant.digest != desired.variant:
            return Refuse(
                about=desired,
                reason=f"the fleet chose another variant than this device would: {found.reason}",
            )
        return Done(about=desired, phase=Phase.RESOLVING)

    def _fetch_documents(self, desired: DesiredModel) -> Release:
        """Read the release from the registry and keep the documents that it is read from."""

        def read(digest: str, limit: int) -> bytes:
            data = self._store.document(digest, limit)
            if data is None:
                data = self._registry.document(self.model, digest, limit)
                self._store.blobs.put(data)
                reach("document-stored")
            return data

        return read_release(read, desired.release)

    def _download(self, _state: ModelState, desired: DesiredModel) -> Event:
        variant = self._fetch_documents(desired).variant(desired.variant)
        missing = {d: n for d, n in self._store.needed(variant).items() if not self._is_here(d)}
        self._store.require_room(sum(missing.values()))
        for digest, size in missing.items():
            # Another model's release may hold the same file.
            with self._store.alone_with(digest, self._pause):
                self._registry.fetch_blob(
                    self.model, digest, size, self._store.blobs, self._on_bytes
                )
            reach("downloaded-one")
        return Done(about=desired, phase=Phase.DOWNLOADING)

    def _is_here(self, digest: str) -> bool:
        try:
            self._store.check(digest)
        except ReleaseError:
            return False
        return True

    def _on_bytes(self, _count: int) -> None:
        reach("download-bytes")
        self._pause(0)

    def _pause(self, seconds: float) -> None:
        if self.wake.wait(seconds):
            raise Interrupted

    def _verify(self, _state: ModelState, desired: DesiredModel) -> Event:
        for digest in self._store.needed(self._variant(desired)):
            self._store.check(digest)
        return Done(about=desired, phase=Phase.VERIFYING)

    def _test(self, state: ModelState, desired: DesiredModel) -> Event:
        variant = self._variant(desired)
        result = run_child(
            TestRequest(
                runtime=choose_runtime(variant),
                model=str(self._store.path(variant, "model")),
                pipeline=str(self._store.path(variant, "pipeline")),
                golden=str(self._store.path(variant, "golden")),
                recorded=str(self._store.path(variant, "recorded")),
            ),
            self.wake,
        )
        if result is None:
            raise Interrupted
        self._hooks.evidence(of_test(self._subject(desired), result))
        reach("tested")
        verdict = combined(result.gates)
        if verdict is not Verdict.PASS:
            reason = f"the test on the device is {verdict}: {_reasons(result.gates, verdict)}"
            if verdict is Verdict.FAIL:
                return Fail(about=desired, reason=reason)
            if not desired.trial.try_undecided:
                return Refuse(about=desired, reason=reason)
            log.warning("%s: %s; its trial decides", self.model, reason)
        return Done(about=desired, phase=Phase.TESTING, baseline=self._baseline(state, desired))

    def _baseline(self, state: ModelState, desired: DesiredModel) -> Baseline:
        """What the running release did lately, or in its own trial if that is too little."""
        running = self._hooks.running(self.model)
        if running is None or not same_release(running.desired, state.running):
            return state.proven
        lately = as_baseline(running.desired.release_version, running.live)
        enough = max(MIN_BASELINE, desired.trial.min_inferred)
        return lately if lately.inferred >= min(enough, state.proven.inferred) else state.proven

    def _try(self, state: ModelState, desired: DesiredModel) -> Event | None:
        running = self._hooks.running(self.model)
        if running is None or not same_release(running.desired, desired):
            return Fail(about=desired, reason="the release could not go live")
        result = live_result(running.live, state.baseline, time.monotonic() - self._trial_began)
        gates = judge(result, desired.trial)
        stuck_s = self._hooks.stuck_s(self.model)
        if stuck_s:
            gates = (*gates, stuck(stuck_s))
            event: Event | None = Fail(about=desired, reason=gates[-1].reason)
        else:
            event = self._judged(desired, running, gates, result.seconds)
        if event is not None:
            placement = {} if stuck_s else running.session.placement()
            self._hooks.evidence(of_trial(self._subject(desired), result, gates, placement))
            reach("tried")
        return event

    def _judged(
        self,
        desired: DesiredModel,
        running: LoadedRelease,
        gates: tuple[GateResult, ...],
        seconds: float,
    ) -> Event | None:
        policy, done = desired.trial, running.live
        verdict = combined(gates)
        if verdict is Verdict.FAIL and done.inferred + done.errors >= policy.min_inferred:
            return Fail(about=desired, reason=_reasons(gates, Verdict.FAIL))
        if verdict is Verdict.PASS and is_enough(seconds, done.inferred, policy):
            return Done(
                about=desired,
                phase=Phase.TRIAL,
                baseline=as_baseline(desired.release_version, done),
            )
        if seconds < policy.timeout_s:
            return None
        doubts = _reasons(gates, Verdict.FAIL) or _reasons(gates, Verdict.UNDECIDED)
        return Fail(
            about=desired,
            reason=f"the trial was undecided after {seconds:.0f} s: "
            f"{doubts or f'only {done.inferred} results were seen'}",
        )

    def _variant(self, desired: DesiredModel) -> Variant:
        return self._store.variant(desired.release, desired.variant)

    def _subject(self, desired: DesiredModel) -> Subject:
        variant = self._variant(desired)
        return Subject(
            model=self.model,
            desired=desired,
            variant=variant,
            runtime=choose_runtime(variant),
            device=self._device,
            capabilities=self._capabilities,
            version=self._hooks.version(),
        )

    def _wait(self, error: EdgemlError) -> None:
        if str(error) != self._last_error:
            log.warning("%s: %s", self.model, error)
            self._last_error = str(error)
        self._retry_at = time.monotonic() + self._retry
        self._retry = min(self._retry * 2, RETRY_S[1])

    def _damaged(self, state: ModelState, desired: DesiredModel, error: ReleaseError) -> ModelState:
        """A blob that is not what its digest says: fetched once more, then refused."""
        self._corrupt += 1
        log.warning("%s: %s", self.model, error)
        fetching = state.phase in {Phase.RESOLVING, Phase.DOWNLOADING}
        if fetching and self._corrupt < CORRUPT_ATTEMPTS:
            self._wait(error)
            return state
        event = Fail if state.phase is Phase.TRIAL else Refuse
        return self._apply(event(about=desired, reason=str(error)))

    @staticmethod
    def _close(loaded: LoadedRelease | None) -> None:
        if loaded is not None:
            loaded.close()


def _reasons(gates: tuple[GateResult, ...], verdict: Verdict) -> str:
    return "; ".join(gate.reason for gate in gates if gate.result is verdict)
