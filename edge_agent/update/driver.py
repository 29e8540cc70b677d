"""Does the work that a model's update is due: resolve, download, verify, test, try, commit.

The thin shell around `machine`: each `turn` makes what takes frames be what the state says,
does one phase's work and journals what followed. It runs on the agent's update thread;
inference goes on meanwhile.
"""

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
from edge_agent.trial import MIN_BASELINE, is_enough, judge
from edge_agent.update.evidence import Subject, as_baseline, live_result, of_test, of_trial
from edge_agent.update.machine import (
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


class Stopped(Exception):  # noqa: N818 -- no error: the agent was asked to end
    """The agent ends; the work goes on when it comes up again."""


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver asks of the agent around it."""

    apply: Callable[[str, Event], ModelState]
    evidence: Callable[[Evidence], None]
    go_live: Callable[[str, LoadedRelease], LoadedRelease | None]
    retire: Callable[[str], LoadedRelease | None]
    running: Callable[[str], LoadedRelease | None]
    site: Callable[[str], Mapping[str, Any]]
    version: Callable[[], tuple[int, int]]


class UpdateDriver:
    """One model's update."""

    def __init__(
        self,
        model: str,
        *,
        store: ReleaseStore,
        registry: OciClient,
        capabilities: Capabilities,
        device: str,
        hooks: Hooks,
        stop: threading.Event,
    ) -> None:
        self._model = model
        self._store = store
        self._registry = registry
        self._capabilities = capabilities
        self._device = device
        self._hooks = hooks
        self._stop = stop
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
        if time.monotonic() < self._retry_at:
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
        except EdgemlError as error:
            self._wait(error)
        return state

    def _settle(self, state: ModelState) -> None:
        wanted = live(state)
        running = self._hooks.running(self._model)
        trial = state.phase is Phase.TRIAL
        if wanted is None:
            if running is not None:
                self._close(self._hooks.retire(self._model))
        elif running is not None and same_release(running.desired, wanted):
            running.desired = wanted
        else:
            loaded = self._ready(wanted, trial=trial)
            reach("swap")
            before = self._hooks.go_live(self._model, loaded)
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
        site = self._hooks.site(self._model)
        warm = self._warm
        if warm is not None and same_release(warm.desired, wanted):
            self._warm = None
            warm.desired = wanted
            try:
                warm.set_site(site)
            except ModelError as error:
                log.warning("%s keeps the site parameters it had: %s", self._model, error)
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
        log.error("%s %s cannot be run: %s", self._model, wanted.release_version, error)
        if state.phase is Phase.TRIAL:
            return self._apply(Fail(about=wanted, reason=f"it cannot be loaded: {error}"))
        self._remove_damaged(wanted)
        return self._apply(Broken(about=wanted, reason=f"it cannot be loaded any more: {error}"))

    def _remove_damaged(self, desired: DesiredModel) -> None:
        """Remove what is damaged of a release, so that it is fetched when it is wanted again."""
        try:
            for digest in self._store.needed(self._store.variant(desired.release, desired.variant)):
                self._store.check(digest)
        except ReleaseError as error:
            log.warning("%s: %s", self._model, error)

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
        state = self._hooks.apply(self._model, event)
        if state.phase in {Phase.COMMITTED, Phase.ROLLED_BACK, Phase.REFUSED}:
            log.info("%s: %s %s", self._model, state.phase, state.reason)
        return state

    def _resolve(self, _state: ModelState, desired: DesiredModel) -> Event:
        release = self._fetch_documents(desired)
        if release.model != self._model:
            return Refuse(
                about=desired, reason=f"the release is {release.name}, wanted is {self._model}"
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
                data = self._registry.document(self._model, digest, limit)
                self._store.blobs.put(data)
                reach("document-stored")
            return data

        return read_release(read, desired.release)

    def _download(self, _state: ModelState, desired: DesiredModel) -> Event:
        variant = self._fetch_documents(desired).variant(desired.variant)
        missing = {d: n for d, n in self._store.needed(variant).items() if not self._is_here(d)}
        self._store.require_room(sum(missing.values()))
        for digest, size in missing.items():
            self._registry.fetch_blob(self._model, digest, size, self._store.blobs, self._on_bytes)
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
        if self._stop.is_set():
            raise Stopped

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
            self._stop,
        )
        if result is None:
            raise Stopped
        self._hooks.evidence(of_test(self._subject(desired), result))
        reach("tested")
        verdict = combined(result.gates)
        if verdict is not Verdict.PASS:
            reasons = "; ".join(g.reason for g in result.gates if g.result is not Verdict.PASS)
            return Fail(about=desired, reason=f"the test on the device is {verdict}: {reasons}")
        return Done(about=desired, phase=Phase.TESTING, baseline=self._baseline(state, desired))

    def _baseline(self, state: ModelState, desired: DesiredModel) -> Baseline:
        """What the running release did lately, or in its own trial if that is too little."""
        running = self._hooks.running(self._model)
        if running is None or not same_release(running.desired, state.running):
            return state.proven
        lately = as_baseline(running.desired.release_version, running.live)
        enough = max(MIN_BASELINE, desired.trial.min_inferred)
        return lately if lately.inferred >= min(enough, state.proven.inferred) else state.proven

    def _try(self, state: ModelState, desired: DesiredModel) -> Event | None:
        running = self._hooks.running(self._model)
        if running is None or not same_release(running.desired, desired):
            return Fail(about=desired, reason="the release could not go live")
        result = live_result(running.live, state.baseline, time.monotonic() - self._trial_began)
        gates = judge(result, desired.trial)
        event = self._judged(desired, running, gates, result.seconds)
        if event is not None:
            placement = running.session.placement()
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
            model=self._model,
            desired=desired,
            variant=variant,
            runtime=choose_runtime(variant),
            device=self._device,
            capabilities=self._capabilities,
            version=self._hooks.version(),
        )

    def _wait(self, error: EdgemlError) -> None:
        if str(error) != self._last_error:
            log.warning("%s: %s", self._model, error)
            self._last_error = str(error)
        self._retry_at = time.monotonic() + self._retry
        self._retry = min(self._retry * 2, RETRY_S[1])

    def _damaged(self, state: ModelState, desired: DesiredModel, error: ReleaseError) -> ModelState:
        """A blob that is not what its digest says: fetched once more, then refused."""
        self._corrupt += 1
        log.warning("%s: %s", self._model, error)
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
