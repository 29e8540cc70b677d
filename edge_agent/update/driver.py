"""Does the work that a model's update is due: resolve, download, verify, test, try, commit.

The thin shell around `machine`: each call of `advance` does one phase's work and journals what
followed. It runs on the agent's update thread; inference goes on meanwhile.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cloud_sync.evidence import (
    Conditions,
    Evidence,
    GateResult,
    Latency,
    LiveResult,
    Verdict,
    Verification,
    combined,
)
from cloud_sync.messages import DesiredModel, Phase
from cloud_sync.release import Release, resolve
from cloud_sync.transfer import OciClient
from edge_agent.failpoints import reach
from edge_agent.loaded import LoadedRelease, choose_runtime, load
from edge_agent.store import ReleaseStore
from edge_agent.testing import TestRequest, TestResult, run_child
from edge_agent.trial import is_enough, judge
from edge_agent.update.machine import (
    Baseline,
    Done,
    Event,
    Fail,
    ModelState,
    Refuse,
    live,
)
from edgeml.errors import DeviceError, EdgemlError, ReleaseError, RemoteError
from hardware.capabilities import Capabilities

log = logging.getLogger(__name__)

RETRY_S = (1.0, 60.0)
CORRUPT_ATTEMPTS = 2


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver asks of the agent around it."""

    apply: Callable[[str, Event], ModelState]
    evidence: Callable[[Evidence], None]
    go_live: Callable[[str, LoadedRelease], LoadedRelease | None]
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
    ) -> None:
        self._model = model
        self._store = store
        self._registry = registry
        self._capabilities = capabilities
        self._device = device
        self._hooks = hooks
        self._before: LoadedRelease | None = None
        self._trial_began = 0.0
        self._retry_at = 0.0
        self._retry = RETRY_S[0]
        self._corrupt = 0
        self._last_error = ""

    def advance(self, state: ModelState) -> ModelState:
        """Do what is due in this phase, if anything, and return the state after it."""
        desired = state.candidate
        if desired is None or time.monotonic() < self._retry_at:
            return state
        work = {
            Phase.RESOLVING: self._resolve,
            Phase.DOWNLOADING: self._download,
            Phase.VERIFYING: self._verify,
            Phase.TESTING: self._test,
            Phase.TRIAL: self._try,
        }.get(state.phase)
        if work is None:
            return state
        reach(f"work-{state.phase}")
        try:
            event = work(state, desired)
        except RemoteError as error:
            self._wait(error)
            return state
        except ReleaseError as error:
            return self._damaged(state, error)
        except DeviceError as error:
            event = Refuse(reason=str(error))
        except EdgemlError as error:
            event = (
                Fail(reason=str(error)) if state.phase is Phase.TRIAL else Refuse(reason=str(error))
            )
        if event is None:
            return state
        self._retry, self._retry_at, self._corrupt = RETRY_S[0], 0.0, 0
        return self._apply(event)

    def settle(self, state: ModelState) -> None:
        """Make what runs be what the state says, after a restart or a change of mind."""
        wanted = live(state)
        running = self._hooks.running(self._model)
        if state.phase is not Phase.TRIAL:
            self._trial_began = 0.0
        if wanted is None or (running and _same(running.desired, wanted)):
            if running and wanted:
                running.desired = wanted
            return
        if self._before and _same(self._before.desired, wanted):
            loaded, self._before = self._before, None
        else:
            loaded = load(self._store, wanted, self._hooks.site(self._model))
        old = self._hooks.go_live(self._model, loaded)
        if state.phase is Phase.TRIAL:
            self._before = old
            self._trial_began = time.monotonic()
        elif old is not None:
            old.close()

    def _apply(self, event: Event) -> ModelState:
        state = self._hooks.apply(self._model, event)
        if state.phase in {Phase.COMMITTED, Phase.ROLLED_BACK}:
            if state.phase is Phase.ROLLED_BACK:
                self.settle(state)
            if self._before is not None:
                self._before.close()
                self._before = None
            log.info("%s: %s %s", self._model, state.phase, state.reason)
        return state

    def _resolve(self, _state: ModelState, desired: DesiredModel) -> Event:
        release = self._fetch_documents(desired)
        found = resolve(release, self._capabilities)
        if found.variant is None:
            return Refuse(reason=found.reason)
        if found.variant.digest != desired.variant:
            return Refuse(
                reason=f"the fleet chose another variant than this device would: {found.reason}"
            )
        return Done(phase=Phase.RESOLVING)

    def _fetch_documents(self, desired: DesiredModel) -> Release:
        """Read the release from the registry and keep the documents that it is read from."""

        def read(digest: str, limit: int) -> bytes:
            if self._store.blobs.has(digest):
                return self._store.blobs.read(digest, limit)
            data = self._registry.document(self._model, digest, limit)
            self._store.blobs.put(data)
            return data

        from cloud_sync.release import read_release

        return read_release(read, desired.release)

    def _download(self, _state: ModelState, desired: DesiredModel) -> Event:
        variant = self._fetch_documents(desired).variant(desired.variant)
        for file in variant.files:
            if file.role == "report":
                continue
            self._registry.fetch_blob(self._model, file.digest, file.size, self._store.blobs)
            reach("downloaded-one")
        return Done(phase=Phase.DOWNLOADING)

    def _verify(self, _state: ModelState, desired: DesiredModel) -> Event:
        variant = self._store.variant(desired.release, desired.variant)
        for file in variant.files:
            if file.role != "report":
                self._store.blobs.verify(file.digest)
        return Done(phase=Phase.VERIFYING)

    def _test(self, _state: ModelState, desired: DesiredModel) -> Event:
        variant = self._store.variant(desired.release, desired.variant)
        result = run_child(
            TestRequest(
                runtime=choose_runtime(variant),
                model=str(self._store.path(variant, "model")),
                pipeline=str(self._store.path(variant, "pipeline")),
                golden=str(self._store.path(variant, "golden")),
                recorded=str(self._store.path(variant, "recorded")),
            )
        )
        self._hooks.evidence(self._test_evidence(desired, result))
        reach("tested")
        verdict = combined(result.gates)
        if verdict is not Verdict.PASS:
            reasons = "; ".join(g.reason for g in result.gates if g.result is not Verdict.PASS)
            return Fail(reason=f"the test on the device is {verdict}: {reasons}")
        return Done(phase=Phase.TESTING, baseline=self._baseline())

    def _baseline(self) -> Baseline:
        running = self._hooks.running(self._model)
        if running is None:
            return Baseline()
        inferred, confident = running.live.recent()
        latency = running.live.latency()
        return Baseline(
            release=running.desired.release_version,
            inferred=inferred,
            confident=confident,
            latency_p95_ms=latency.p95_ms if latency else 0.0,
        )

    def _try(self, state: ModelState, desired: DesiredModel) -> Event | None:
        self.settle(state)
        running = self._hooks.running(self._model)
        if running is None:
            return Fail(reason="the release could not go live")
        if not self._trial_began:
            self._trial_began = time.monotonic()
        reach("trial")
        result = _live_result(running, state.baseline, time.monotonic() - self._trial_began)
        gates = judge(result, desired.trial)
        verdict = combined(gates)
        timed_out = result.seconds >= desired.trial.timeout_s
        if (
            verdict is Verdict.FAIL
            and result.inferred + result.errors >= desired.trial.min_inferred
        ):
            event: Event = Fail(reason=_reasons(gates, Verdict.FAIL))
        elif verdict is Verdict.PASS and is_enough(result, desired.trial):
            event = Done(phase=Phase.TRIAL)
        elif timed_out:
            doubts = _reasons(gates, Verdict.UNDECIDED) or _reasons(gates, Verdict.FAIL)
            event = Fail(
                reason=f"the trial was undecided after {result.seconds:.0f} s: "
                f"{doubts or f'only {result.inferred} results were seen'}"
            )
        else:
            return None
        self._hooks.evidence(self._trial_evidence(desired, running, result, gates))
        return event

    def _test_evidence(self, desired: DesiredModel, result: TestResult) -> Evidence:
        return msgspec.structs.replace(
            self._evidence(desired, "test"),
            golden=result.golden,
            latency=result.latency,
            memory_bytes=result.memory_bytes,
            placement=result.placement,
            gates=result.gates,
        )

    def _trial_evidence(
        self,
        desired: DesiredModel,
        running: LoadedRelease,
        result: LiveResult,
        gates: tuple[GateResult, ...],
    ) -> Evidence:
        return msgspec.structs.replace(
            self._evidence(desired, "trial"),
            live=result,
            latency=result.latency,
            placement=running.session.placement(),
            gates=gates,
        )

    def _evidence(self, desired: DesiredModel, stage: str) -> Evidence:
        from hardware.probes import instruction_set

        variant = self._store.variant(desired.release, desired.variant)
        runtime = choose_runtime(variant)
        versions = {r.name: r.version for r in self._capabilities.runtimes}
        epoch, counter = self._hooks.version()
        return Evidence(
            stage=stage,
            model=self._model,
            release=desired.release,
            variant=desired.variant,
            target=variant.target,
            runtime=runtime,
            runtime_version=versions.get(runtime, ""),
            verification=Verification.DEVICE_EXECUTED,
            device=self._device,
            desired_epoch=epoch,
            desired_counter=counter,
            nonce=desired.nonce,
            conditions=Conditions(
                hardware_class=self._capabilities.hardware_class,
                cpu=self._capabilities.cpu.model,
                instruction_set=instruction_set(self._capabilities),
                threads=1,
                software=versions,
            ),
        )

    def _wait(self, error: RemoteError) -> None:
        if str(error) != self._last_error:
            log.warning("%s: %s", self._model, error)
            self._last_error = str(error)
        self._retry_at = time.monotonic() + self._retry
        self._retry = min(self._retry * 2, RETRY_S[1])

    def _damaged(self, state: ModelState, error: ReleaseError) -> ModelState:
        """A blob that is not what its digest says: fetched once more, then refused."""
        self._corrupt += 1
        log.warning("%s: %s", self._model, error)
        if self._corrupt < CORRUPT_ATTEMPTS and state.phase is Phase.DOWNLOADING:
            return state
        self._corrupt = 0
        return self._apply(Refuse(reason=str(error)))


def _live_result(running: LoadedRelease, baseline: Baseline, seconds: float) -> LiveResult:
    done = running.live
    before = baseline.latency_p95_ms
    return LiveResult(
        seconds=seconds,
        inferred=done.inferred,
        empty=done.empty,
        errors=done.errors,
        confident=done.confident,
        latency=done.latency(),
        baseline_release=baseline.release,
        baseline_inferred=baseline.inferred,
        baseline_confident=baseline.confident,
        baseline_latency=Latency(p50_ms=before, p95_ms=before, p99_ms=before, n=baseline.inferred)
        if before
        else None,
    )


def _reasons(gates: tuple[GateResult, ...], verdict: Verdict) -> str:
    return "; ".join(gate.reason for gate in gates if gate.result is verdict)


def _same(a: DesiredModel, b: DesiredModel) -> bool:
    return (a.release, a.variant) == (b.release, b.variant)
