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
from typing import TYPE_CHECKING

from cloud_sync.evidence import GateResult, Verdict, combined
from cloud_sync.messages import DesiredModel, Phase, RollbackCause
from cloud_sync.metadata_error import MetadataError
from cloud_sync.release import Variant, choose, resolve
from cloud_sync.trial import MIN_BASELINE, is_enough, judge, stuck, too_much_memory
from cloud_sync.update_machine import (
    IN_MOTION,
    Again,
    Baseline,
    Broken,
    Done,
    Event,
    Fail,
    ModelState,
    Refuse,
    Waiting,
    is_held,
    live,
    same_release,
    waits,
)
from cloud_sync.windows import HELD
from edge_agent.budget import BudgetSpent
from edge_agent.choices import Choices
from edge_agent.execution import Execution
from edge_agent.failpoints import reach
from edge_agent.loaded import LoadedRelease
from edge_agent.memory import require_below, require_memory, rss_bytes
from edge_agent.shortage import Shortage
from edge_agent.store import ReleaseStore
from edge_agent.testing import run_child
from edge_agent.update.evidence import (
    Subject,
    as_baseline,
    live_result,
    of_test,
    of_trial,
    reasons,
)
from edge_agent.update.fetching import Connect, Fetcher, Interrupted
from edge_agent.update.hooks import Hooks
from edge_agent.update.race import Outcome, RunTest, run_race
from edge_agent.update.serving import Serving
from edgeml.errors import DeviceError, EdgemlError, ModelError, ReleaseError, RemoteError
from hardware.capabilities import Capabilities

if TYPE_CHECKING:
    from edge_agent.ledger import Ledger
    from edge_agent.update.deltas import Deltas

log = logging.getLogger(__name__)

RETRY_S = (1.0, 60.0)
WINDOW_S = 1.0  # how often a closed window is looked at again
# How often what was refused for now is looked at again: disk or memory that lacked, metadata that
# were damaged.
LOOK_S = (30.0, 3600.0)
CORRUPT_ATTEMPTS = 2
# Metadata are small, and a proxy or an old cache spoils them for longer: half a minute in all.
METADATA_ATTEMPTS = 6
# What the process of a test takes without its model: Python, numpy, OpenCV and a runtime.
TESTING_BYTES = 96 << 20
_OF_THE_PROCESS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC})


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
        registry: Connect,
        capabilities: Capabilities,
        choices: Choices,
        device: str,
        hooks: Hooks,
        ceiling: int = 0,
        run_test: RunTest = run_child,
        ledger: "Ledger | None" = None,
        deltas: "Deltas | None" = None,
    ) -> None:
        self.model = model
        self.wake = threading.Event()
        self._store = store
        self._fetcher = Fetcher(
            model,
            store,
            registry,
            self.wake,
            may_go_on=lambda: not (self._is_held and self._hooks.closed()),
            ledger=ledger,
            deltas=deltas,
        )
        self._is_held = False
        self._capabilities = capabilities
        self._choices = choices
        self._ceiling = ceiling
        self._run_test = run_test
        self._device = device
        self._hooks = hooks
        self._serving = Serving(model, store, choices, hooks)
        self._about: tuple[DesiredModel | None, Phase] = (None, Phase.IDLE)
        self._retry_at = 0.0
        self._retry = RETRY_S[0]
        self._look_at = 0.0
        self._look = LOOK_S[0]
        self._corrupt = 0
        self._last_error = ""

    @property
    def warm(self) -> LoadedRelease | None:
        """The release before, still loaded while a trial lasts."""
        return self._serving.warm

    def turn(self, state: ModelState) -> ModelState:
        """Do what is due in this state, if anything, and return the state after it."""
        if self._about != (state.candidate, state.phase):
            if self._about[0] != state.candidate:
                self._look = LOOK_S[0]
            self._look_at = time.monotonic() + self._look
            self._about = (state.candidate, state.phase)
            self._retry, self._retry_at, self._corrupt = RETRY_S[0], 0.0, 0
        if time.monotonic() < self._retry_at and not self._hooks.stuck_s(self.model):
            return state
        self._is_held = False
        after = self.bring_up(state)
        if after != state or time.monotonic() < self._retry_at:
            return after
        if after.phase not in IN_MOTION:
            self._tune(after)
        if after.phase is Phase.REFUSED and after.lacking:
            return self._look_again(after)
        if is_held(after):
            after = self._at_its_time(after)
            if after.reason.startswith(HELD):
                return after
            self._is_held = True
        return self._advance(after)

    def bring_up(self, state: ModelState) -> ModelState:
        """Make what takes frames be what the state says; what cannot be loaded is given up."""
        try:
            self._serving.settle(state)
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

    def renew(self) -> None:
        """Load what runs anew at the next turn, and free what is there now."""
        self._serving.renew = True
        self.wake.set()

    def interrupt(self) -> None:
        """Have the turn that lasts end soon, whatever of the network it waits for."""
        self.wake.set()
        self._fetcher.cut()

    def close(self) -> None:
        """Close the connections."""
        self._fetcher.close()

    def _cannot_run(self, state: ModelState, error: EdgemlError) -> ModelState:
        wanted = live(state)
        assert wanted is not None
        log.error("%s %s cannot be run: %s", self.model, wanted.release_version, error)
        if state.phase is Phase.TRIAL:
            why = f"it cannot be loaded: {error}"
            return self._apply(Fail(about=wanted, reason=why, cause=RollbackCause.DAMAGED))
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
            Phase.PREPARED: self._switch,
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
            unusable = DeviceError("The disk cannot be used.", why=f"{error}.")
            self._wait(unusable)
            return self._apply(Waiting(about=desired, reason=str(unusable)))
        except (ReleaseError, MetadataError) as error:
            return self._damaged(state, desired, error)
        except BudgetSpent as error:
            if error.waits:
                self._wait(error)
                return self._apply(Waiting(about=desired, reason=str(error)))
            event = Refuse(about=desired, reason=str(error))
        except Shortage as error:
            reason = f"{error} It is taken up again by itself when there is enough."
            event = Refuse(about=desired, reason=reason, lacking=True)
        except EdgemlError as error:
            event = Refuse(about=desired, reason=str(error))
        if event is None:
            return state
        return self._apply(event)

    def _apply(self, event: Event) -> ModelState:
        state = self._hooks.apply(self.model, event)
        if state.phase in {Phase.COMMITTED, Phase.ROLLED_BACK, Phase.REFUSED}:
            log.info("%s: %s", self.model, f"{state.phase} {state.reason}".rstrip())
        return state

    def _at_its_time(self, state: ModelState) -> ModelState:
        """The state, with the reason while no update window is open, without it once one is."""
        desired, why = state.candidate, self._hooks.closed()
        assert desired is not None
        if why:
            self._retry_at = time.monotonic() + WINDOW_S
        elif not state.reason.startswith(HELD):
            return state
        return self._apply(Waiting(about=desired, reason=why))

    def _look_again(self, state: ModelState) -> ModelState:
        """Take up what was refused for now, where nothing stands in its way any more."""
        desired, now = state.candidate, time.monotonic()
        if desired is None or now < self._look_at:
            return state
        self._look_at, self._look = now + self._look, min(2 * self._look, LOOK_S[1])
        try:
            with self._store.in_use():
                self._resolve(state, desired)
        except (MetadataError, ReleaseError, RemoteError, DeviceError, OSError) as error:
            log.debug("%s: %s", self.model, error)
            return state
        except EdgemlError as error:
            # Whole metadata say that nobody has signed it, say: that is another refusal.
            log.info("%s: %s", self.model, error)
        return self._apply(Again(about=desired))

    def _resolve(self, _state: ModelState, desired: DesiredModel) -> Event:
        index = self._fetcher.index(desired)
        if index.model != self.model:
            return Refuse(
                about=desired, reason=f"the release is {index.name}, wanted is {self.model}"
            )
        self._hooks.trusted(self.model, index.version, index.digest)
        best = choose(index.variants, self._capabilities)
        if best is None or best.digest != desired.variant:
            # Only who has to say why reads what he will not run.
            why = resolve(self._fetcher.release(desired), self._capabilities).reason
            other = "the fleet chose another variant than this device would: " if best else ""
            return Refuse(about=desired, reason=f"{other}{why}")
        self._preflight(desired, self._fetcher.variant(desired))
        return Done(about=desired, phase=Phase.RESOLVING)

    def _preflight(self, desired: DesiredModel, variant: Variant) -> None:
        """Check, before the first byte of a model, that a second has room: disk, memory, budget.

        Raises:
            DeviceError: one of them has not.
        """
        model = variant.file("model").size
        # What the runtime compiles of it is about as large again.
        self._fetcher.preflight(desired, variant, room=model)
        require_memory(TESTING_BYTES + 2 * model, "a second model and its test")
        if self._ceiling:
            require_below(self._ceiling, rss_bytes() + 2 * model)

    def _download(self, _state: ModelState, desired: DesiredModel) -> Event:
        self._fetcher.files(desired, self._fetcher.variant(desired))
        return Done(about=desired, phase=Phase.DOWNLOADING)

    def _verify(self, _state: ModelState, desired: DesiredModel) -> Event:
        for digest in self._store.needed(self._variant(desired)):
            self._store.check(digest)
        return Done(about=desired, phase=Phase.VERIFYING)

    def _test(self, state: ModelState, desired: DesiredModel) -> Event:
        outcome = self._race(desired)
        reach("raced")
        gates, verdict = outcome.result.gates, combined(outcome.result.gates)
        if verdict is not Verdict.FAIL:
            self._choices.keep(desired, outcome.execution)
        reach("tested")
        if verdict is not Verdict.PASS:
            how = "failed" if verdict is Verdict.FAIL else f"is {verdict}"
            reason = f"the test on the device {how}: {reasons(gates, verdict)}"
            if verdict is Verdict.FAIL:
                crashed = outcome.result.crashed
                cause = RollbackCause.CRASHED if crashed else RollbackCause.GATE
                return Fail(about=desired, reason=reason, cause=cause)
            if not desired.trial.try_undecided:
                return Refuse(about=desired, reason=reason)
            log.warning("%s: %s; its trial decides", self.model, reason)
        # Two models will be in memory: the one that runs stays warm until the trial ends.
        require_memory(outcome.result.memory_bytes, "the trial")
        return Done(about=desired, phase=Phase.TESTING, baseline=self._baseline(state, desired))

    def _switch(self, _state: ModelState, desired: DesiredModel) -> Event | None:
        """Go live, where the fleet lets it, within the time that it said."""
        if desired.until == "prepared":
            return None
        now = self._hooks.now()
        if now is not None and not desired.switch_at <= now <= (desired.switch_by or now):
            return None
        reach("switching")
        return Done(about=desired, phase=Phase.PREPARED)

    def _tune(self, state: ModelState) -> None:
        """Race what runs where that was not done with the runtimes that are installed now."""
        desired = state.running
        if desired is None or self._choices.is_known(desired):
            return
        try:
            with self._store.in_use():
                outcome = self._race(desired)
        except (EdgemlError, OSError) as error:
            log.warning("%s cannot be raced: %s", self.model, error)
            self._choices.keep(desired, self._choices.of(desired, self._variant(desired)))
            return
        log.info("%s: %s was raced again: %s", self.model, desired.release_version, outcome.race)
        before = self._choices.of(desired, self._variant(desired))
        works = combined(outcome.result.gates) is not Verdict.FAIL
        self._choices.keep(desired, outcome.execution if works else before)
        if works and outcome.execution != before:
            self.renew()

    def _race(self, desired: DesiredModel) -> Outcome:
        outcome = run_race(self._store, self._choices, desired, self.wake, self._run_test)
        if outcome is None:
            raise Interrupted
        subject = self._subject(desired, outcome.execution)
        self._hooks.evidence(of_test(subject, outcome.result, outcome.race))
        return outcome

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
        result = live_result(
            running.live, state.baseline, time.monotonic() - self._serving.trial_began
        )
        gates = judge(result, desired.trial)
        stuck_s = self._hooks.stuck_s(self.model)
        if stuck_s:
            gates = (*gates, stuck(stuck_s))
            event: Event | None = Fail(about=desired, reason=gates[-1].reason)
        elif self._ceiling and rss_bytes() > self._ceiling:
            gates = (*gates, too_much_memory(rss_bytes(), self._ceiling))
            event = Fail(about=desired, reason=gates[-1].reason)
        else:
            event = self._judged(state, desired, running, gates, result.seconds)
        if isinstance(event, Fail) or (event is not None and state.passed is None):
            placement = {} if stuck_s else running.session.placement()
            self._hooks.evidence(
                of_trial(self._subject(desired, running.execution), result, gates, placement)
            )
            reach("tried")
        return event

    def _judged(
        self,
        state: ModelState,
        desired: DesiredModel,
        running: LoadedRelease,
        gates: tuple[GateResult, ...],
        seconds: float,
    ) -> Event | None:
        policy, done = desired.trial, running.live
        verdict = combined(gates)
        if verdict is Verdict.FAIL and done.inferred + done.errors >= policy.min_inferred:
            return Fail(about=desired, reason=reasons(gates, Verdict.FAIL))
        if state.passed is not None:
            done_before = Done(about=desired, phase=Phase.TRIAL, baseline=state.passed)
            return None if waits(state) else done_before
        if verdict is Verdict.PASS and is_enough(seconds, done.inferred, policy):
            return Done(
                about=desired,
                phase=Phase.TRIAL,
                baseline=as_baseline(desired.release_version, done),
            )
        if seconds < policy.timeout_s:
            return None
        doubts = reasons(gates, Verdict.FAIL) or reasons(gates, Verdict.UNDECIDED)
        return Fail(
            about=desired,
            reason=f"the trial was undecided after {seconds:.0f} s: "
            f"{doubts or f'only {done.inferred} results were seen'}",
        )

    def _variant(self, desired: DesiredModel) -> Variant:
        return self._store.variant(desired.release, desired.variant)

    def _subject(self, desired: DesiredModel, execution: Execution) -> Subject:
        return Subject(
            model=self.model,
            desired=desired,
            variant=self._variant(desired),
            execution=execution,
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

    def _damaged(
        self, state: ModelState, desired: DesiredModel, error: ReleaseError | MetadataError
    ) -> ModelState:
        """A blob that is not what its digest says: fetched once more, then refused."""
        self._corrupt += 1
        log.warning("%s: %s", self.model, error)
        if isinstance(error, MetadataError):
            return self._doubted(desired, error)
        fetching = state.phase in {Phase.RESOLVING, Phase.DOWNLOADING}
        if fetching and self._corrupt < CORRUPT_ATTEMPTS:
            self._wait(error)
            return state
        event = Fail if state.phase is Phase.TRIAL else Refuse
        return self._apply(event(about=desired, reason=str(error)))

    def _doubted(self, desired: DesiredModel, error: MetadataError) -> ModelState:
        """Metadata that are damaged, stale or forged: asked for again, then refused for now."""
        if self._corrupt < METADATA_ATTEMPTS:
            self._wait(error)
            return self._apply(Waiting(about=desired, reason=f"{error} It is asked for again."))
        times = f"It was asked for {self._corrupt} times, and is now and then again by itself."
        return self._apply(Refuse(about=desired, reason=f"{error} {times}", lacking=True))
