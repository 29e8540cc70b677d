"""The update of one model: what may follow on what. Pure; nothing here reads or writes.

    idle -> resolving -> downloading -> verifying -> testing -> (prepared) -> trial -> committed
                 |            |             |           |           |           |
                 +-> refused <+-------------+           +-----------+-----------+-> rolled_back

A device that switches together with others stops where the candidate's `until` says: at
`prepared`, while what runs goes on, or at the end of its trial, which then has `passed`. It goes on
when a later state of the fleet says so, and goes back at once when that wants what runs.

The machine is level-triggered: a state says which work is due (its phase) and what takes
frames (`live`), and every step is journalled before the next begins, so that after a crash
the same work is simply done again. What runs is `running` until a trial has passed;
`candidate` is live only while the phase is `trial`.

A model that the fleet wants no more goes back to `idle` from anywhere: nothing of it runs, and
its files may go.

Work takes long, and the fleet may change its mind meanwhile: an event says which candidate it
is about, and one about another candidate changes nothing.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from cloud_sync.messages import (
    DesiredModel,
    Feature,
    Phase,
    ReportedModel,
    RollbackCause,
)

FEATURES = (str(Feature.PREPARE),)  # what this machine can do that older ones could not
MAX_TRIAL_BOOTS = 3
MAX_CRASHES = 3
MAX_BLOCKED = 32

IN_MOTION = frozenset(
    {
        Phase.RESOLVING,
        Phase.DOWNLOADING,
        Phase.VERIFYING,
        Phase.TESTING,
        Phase.PREPARED,
        Phase.TRIAL,
    }
)


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What a release did with live frames on this device."""

    release: str = ""
    inferred: int = 0
    confident: int = 0
    latency_p95_ms: float = 0.0


class Blocked(msgspec.Struct, frozen=True, kw_only=True):
    """A release that did badly here, and up to which attempt it is not tried again."""

    release: str
    variant: str
    attempt: int


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the device knows of one model's releases; it is what is journalled.

    `baseline` is what a trial is compared with; `proven` what the running release did in its
    own trial, for the times when it has not run long enough to be asked again. `passed` is what
    the candidate did in a trial that has passed and is not to be committed yet. `crashes` counts
    how often in a row the agent did not end well soon after it came up with `running`, which is
    `steady` once it has run for a while. A `refused` one that is `lacking` is taken up again when
    the device has what it lacked.
    """

    phase: Phase = Phase.IDLE
    running: DesiredModel | None = None
    previous: DesiredModel | None = None
    candidate: DesiredModel | None = None
    reason: str = ""
    cause: str = ""
    trial_boots: int = 0
    crashes: int = 0
    steady: bool = False
    lacking: bool = False
    baseline: Baseline = Baseline()
    proven: Baseline = Baseline()
    passed: Baseline | None = None
    blocked: tuple[Blocked, ...] = ()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet wants this release."""

    desired: DesiredModel


class Unwanted(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet wants no release of this model any more."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The work of `phase` succeeded.

    At the end of the test `baseline` is what the running release did, at the end of the trial
    what the candidate did.
    """

    phase: Phase
    about: DesiredModel
    baseline: Baseline = Baseline()


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """The release cannot be taken here, through no fault of its behaviour.

    `lacking`: for want of what the device may have again.
    """

    about: DesiredModel
    reason: str
    lacking: bool = False


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """The device has now what it lacked when it refused."""

    about: DesiredModel


class Fail(msgspec.Struct, frozen=True, kw_only=True):
    """The release did badly, in the test or in the trial."""

    about: DesiredModel
    reason: str
    cause: RollbackCause = RollbackCause.GATE


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """The work that is due waits: for a window, the data budget, a disk that can be used.

    Without a reason it waits no more.
    """

    about: DesiredModel
    reason: str


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """The running release cannot be used any more: mostly, its files are damaged or gone."""

    about: DesiredModel
    reason: str
    cause: RollbackCause = RollbackCause.DAMAGED


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """The agent came up again; `crashed` where it had not ended well, and this model may be why."""

    crashed: bool = False


class Steady(msgspec.Struct, frozen=True, kw_only=True):
    """The agent has run for a while with what runs."""


Event = Wanted | Unwanted | Done | Refuse | Again | Fail | Waiting | Broken | Restarted | Steady

_NEXT: dict[Phase, Phase] = {
    Phase.RESOLVING: Phase.DOWNLOADING,
    Phase.DOWNLOADING: Phase.VERIFYING,
    Phase.VERIFYING: Phase.TESTING,
    Phase.TESTING: Phase.PREPARED,
    Phase.PREPARED: Phase.TRIAL,
}
_PREPARED = "it is ready, and waits for its group"
_PASSED = "its trial has passed, and it waits for its group"


def step(state: ModelState, event: Event) -> ModelState:
    """The state after an event; an event that does not apply changes nothing."""
    match event:
        case Wanted():
            return _wanted(state, event.desired)
        case Unwanted():
            # What was given up here stays given up, should the fleet ask for it again.
            return ModelState(blocked=state.blocked)
        case Restarted():
            return _restarted(state, event)
        case Steady():
            return _steady(state)
        case Broken():
            return _broken(state, event)
        case Done() | Refuse() | Again() | Fail() | Waiting():
            return _worked(state, event)


def _worked(state: ModelState, event: Done | Refuse | Again | Fail | Waiting) -> ModelState:
    if not _is_about(event.about, state):
        return state
    match event:
        case Done():
            return _done(state, event)
        case Refuse():
            return _end(state, Phase.REFUSED, event.reason, lacking=event.lacking)
        case Again():
            return _again(state)
        case Fail():
            return _end(state, Phase.ROLLED_BACK, event.reason, cause=event.cause)
        case Waiting():
            moving = state.phase in IN_MOTION
            return msgspec.structs.replace(state, reason=event.reason) if moving else state


def live(state: ModelState) -> DesiredModel | None:
    """The release that takes frames in this state."""
    return state.candidate if state.phase is Phase.TRIAL else state.running


def waits(state: ModelState) -> bool:
    """Whether the device has gone as far with its candidate as the fleet lets it."""
    until = state.candidate.until if state.candidate else ""
    if state.phase is Phase.PREPARED:
        return until == "prepared"
    return state.phase is Phase.TRIAL and until != "" and state.passed is not None


def is_held(state: ModelState) -> bool:
    """Whether the work that is due is done in an update window only.

    What goes back to the release before disturbs less than what it ends. A trial goes on to its
    end, and devices that switch together do so when the fleet says.
    """
    begun = {Phase.RESOLVING, Phase.DOWNLOADING, Phase.VERIFYING, Phase.TESTING}
    return state.phase in begun and not same_release(state.candidate, state.previous)


def kept(state: ModelState) -> tuple[DesiredModel, ...]:
    """The releases whose files must stay on the device in this state."""
    found = (state.running, state.previous, state.candidate)
    return tuple(desired for desired in found if desired is not None)


def is_blocked(state: ModelState, desired: DesiredModel) -> bool:
    """Whether this attempt at this release was given up here."""
    return any(
        (b.release, b.variant) == (desired.release, desired.variant)
        and desired.attempt <= b.attempt
        for b in state.blocked
    )


def same_release(a: DesiredModel | None, b: DesiredModel | None) -> bool:
    """Whether both are the same variant of the same release."""
    return a is not None and b is not None and (a.release, a.variant) == (b.release, b.variant)


def report(state: ModelState) -> ReportedModel:
    """The state as the fleet is told."""
    running, about = state.running, state.candidate or state.running
    return ReportedModel(
        phase=state.phase,
        running_release=running.release if running else "",
        running_variant=running.variant if running else "",
        running_version=running.release_version if running else "",
        release=about.release if about else "",
        variant=about.variant if about else "",
        release_version=about.release_version if about else "",
        rollout=about.rollout if about else "",
        attempt=about.attempt if about else 0,
        reason=state.reason,
        cause=state.cause if state.phase is Phase.ROLLED_BACK else "",
    )


def _is_about(about: DesiredModel, state: ModelState) -> bool:
    candidate = state.candidate
    return (
        candidate is not None
        and same_release(about, candidate)
        and about.attempt == candidate.attempt
    )


def _wanted(state: ModelState, desired: DesiredModel) -> ModelState:
    replace = msgspec.structs.replace
    if same_release(state.running, desired):
        # Nothing to install; an update to something else, in motion or given up, is over.
        return replace(
            state,
            phase=Phase.COMMITTED,
            running=desired,
            candidate=None,
            reason="",
            trial_boots=0,
            passed=None,
        )
    current = state.candidate
    if current and same_release(current, desired) and desired.attempt <= current.attempt:
        same_attempt = desired.attempt == current.attempt and state.phase in IN_MOTION
        return replace(state, candidate=desired) if same_attempt else state
    if is_blocked(state, desired):
        return replace(
            state,
            phase=Phase.ROLLED_BACK,
            candidate=desired,
            reason="it was rolled back on this device before; a higher attempt tries it again",
            cause="",
            trial_boots=0,
            passed=None,
        )
    return replace(
        state,
        phase=Phase.RESOLVING,
        candidate=desired,
        reason="",
        trial_boots=0,
        baseline=Baseline(),
        passed=None,
    )


def _done(state: ModelState, event: Done) -> ModelState:
    if state.phase is not event.phase:
        return state
    replace = msgspec.structs.replace
    until = state.candidate.until if state.candidate else ""
    if state.phase is Phase.TRIAL and until:
        return state if state.passed else replace(state, passed=event.baseline, reason=_PASSED)
    if state.phase is Phase.TRIAL:
        return replace(
            state,
            phase=Phase.COMMITTED,
            previous=state.running,
            running=state.candidate,
            candidate=None,
            reason="",
            trial_boots=0,
            crashes=0,
            steady=False,
            proven=event.baseline,
            passed=None,
        )
    if state.phase not in _NEXT:
        return state
    if state.phase is Phase.PREPARED and until == "prepared":
        return state
    baseline = event.baseline if state.phase is Phase.TESTING else state.baseline
    after = _NEXT[state.phase]
    if after is Phase.PREPARED and until != "prepared":
        after = Phase.TRIAL
    reason = _PREPARED if after is Phase.PREPARED else ""
    return replace(state, phase=after, baseline=baseline, reason=reason)


def _again(state: ModelState) -> ModelState:
    if state.phase is not Phase.REFUSED or not state.lacking:
        return state
    return msgspec.structs.replace(state, phase=Phase.RESOLVING, reason="", lacking=False)


def _end(
    state: ModelState,
    phase: Literal[Phase.REFUSED, Phase.ROLLED_BACK],
    reason: str,
    *,
    lacking: bool = False,
    cause: str = "",
) -> ModelState:
    if state.phase not in IN_MOTION or state.candidate is None:
        return state
    blocked = state.blocked
    if phase is Phase.ROLLED_BACK:
        blocked = _block(blocked, state.candidate)
    return msgspec.structs.replace(
        state,
        phase=phase,
        reason=reason,
        cause=cause,
        blocked=blocked,
        trial_boots=0,
        lacking=lacking,
        passed=None,
    )


def _block(blocked: tuple[Blocked, ...], desired: DesiredModel) -> tuple[Blocked, ...]:
    """Add a mark; the oldest goes at the bound, one for the same release is replaced."""
    key = (desired.release, desired.variant)
    others = tuple(b for b in blocked if (b.release, b.variant) != key)
    mark = Blocked(release=desired.release, variant=desired.variant, attempt=desired.attempt)
    return (*others, mark)[-MAX_BLOCKED:]


def _broken(state: ModelState, event: Broken) -> ModelState:
    """Go back to the release before; an update in motion goes on from there."""
    if not same_release(state.running, event.about):
        return state
    replace = msgspec.structs.replace
    fallen = replace(
        state,
        running=state.previous,
        previous=None,
        proven=Baseline(),
        crashes=0,
        steady=False,
    )
    if state.phase in IN_MOTION:
        return fallen
    return replace(
        fallen,
        phase=Phase.ROLLED_BACK,
        candidate=event.about,
        reason=event.reason,
        cause=event.cause,
    )


def blamed(models: Mapping[str, ModelState]) -> frozenset[str]:
    """The models that may be why the agent crashed: those whose release has not proven itself."""
    running = {name: state for name, state in models.items() if live(state) is not None}
    fresh = {
        name for name, state in running.items() if not state.steady or state.phase is Phase.TRIAL
    }
    return frozenset(fresh or running)


def _restarted(state: ModelState, event: Restarted) -> ModelState:
    replace = msgspec.structs.replace
    if state.phase is Phase.TRIAL:
        if state.passed is not None and not event.crashed:
            return state
        boots = state.trial_boots + 1
        if boots >= MAX_TRIAL_BOOTS:
            why = f"the agent had to start {boots} times during its trial"
            return _end(state, Phase.ROLLED_BACK, why, cause=RollbackCause.CRASHED)
        return replace(state, trial_boots=boots)
    if not event.crashed or state.running is None:
        return state
    crashes = state.crashes + 1
    if crashes < MAX_CRASHES or state.previous is None:
        return replace(state, crashes=min(crashes, MAX_CRASHES))
    why = f"the agent crashed {crashes} times in a row with it"
    blocked = _block(state.blocked, state.running)
    crashed = Broken(about=state.running, reason=why, cause=RollbackCause.CRASHED)
    return _broken(replace(state, blocked=blocked), crashed)


def _steady(state: ModelState) -> ModelState:
    if state.phase is Phase.TRIAL or state.running is None:
        return state
    return msgspec.structs.replace(state, crashes=0, steady=True)
