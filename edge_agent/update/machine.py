"""The update of one model: what may follow on what. Pure; nothing here reads or writes.

    idle -> resolving -> downloading -> verifying -> testing -> trial -> committed
                 |            |             |           |          |
                 +-> refused <+-------------+           +----------+-> rolled_back

The machine is level-triggered: the phase says which work is due, and every step is journalled
before the next begins, so that after a crash the same work is simply done again. What runs is
`running` until a trial has passed; `candidate` is live only while the phase is `trial`.
"""

from typing import Literal

import msgspec

from cloud_sync.messages import DesiredModel, Phase, ReportedModel

MAX_TRIAL_BOOTS = 3
MAX_BLOCKED = 32

IN_MOTION = frozenset(
    {Phase.RESOLVING, Phase.DOWNLOADING, Phase.VERIFYING, Phase.TESTING, Phase.TRIAL}
)


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What the release before did with live frames on this device."""

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
    """Everything the device knows of one model's releases; it is what is journalled."""

    phase: Phase = Phase.IDLE
    running: DesiredModel | None = None
    previous: DesiredModel | None = None
    candidate: DesiredModel | None = None
    reason: str = ""
    trial_boots: int = 0
    baseline: Baseline = Baseline()
    blocked: tuple[Blocked, ...] = ()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet wants this release."""

    desired: DesiredModel


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The work of `phase` succeeded; `baseline` goes with the end of the test."""

    phase: Phase
    baseline: Baseline = Baseline()


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """The release cannot be taken here, through no fault of its behaviour."""

    reason: str


class Fail(msgspec.Struct, frozen=True, kw_only=True):
    """The release did badly, in the test or in the trial."""

    reason: str


class Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """The agent came up again."""


Event = Wanted | Done | Refuse | Fail | Restarted

_NEXT: dict[Phase, Phase] = {
    Phase.RESOLVING: Phase.DOWNLOADING,
    Phase.DOWNLOADING: Phase.VERIFYING,
    Phase.VERIFYING: Phase.TESTING,
    Phase.TESTING: Phase.TRIAL,
}


def step(state: ModelState, event: Event) -> ModelState:
    """The state after an event; an event that does not apply changes nothing."""
    match event:
        case Wanted():
            return _wanted(state, event.desired)
        case Done():
            return _done(state, event)
        case Refuse():
            return _end(state, Phase.REFUSED, event.reason)
        case Fail():
            return _end(state, Phase.ROLLED_BACK, event.reason)
        case Restarted():
            return _restarted(state)


def live(state: ModelState) -> DesiredModel | None:
    """The release that takes frames in this state."""
    return state.candidate if state.phase is Phase.TRIAL else state.running


def is_blocked(state: ModelState, desired: DesiredModel) -> bool:
    """Whether this attempt at this release was given up here."""
    return any(
        (b.release, b.variant) == (desired.release, desired.variant)
        and desired.attempt <= b.attempt
        for b in state.blocked
    )


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
    )


def _wanted(state: ModelState, desired: DesiredModel) -> ModelState:
    replace = msgspec.structs.replace
    if same_release(state.running, desired):
        # Nothing to install; an update to something else, in motion or given up, is over.
        if state.phase is Phase.COMMITTED and state.candidate is None and state.running == desired:
            return state
        return replace(
            state, phase=Phase.COMMITTED, running=desired, candidate=None, reason="", trial_boots=0
        )
    current = state.candidate
    if current and same_release(current, desired) and desired.attempt <= current.attempt:
        in_motion = state.phase in IN_MOTION
        return replace(state, candidate=desired) if in_motion and current != desired else state
    if is_blocked(state, desired):
        return state
    return replace(
        state,
        phase=Phase.RESOLVING,
        candidate=desired,
        reason="",
        trial_boots=0,
        baseline=Baseline(),
    )


def _done(state: ModelState, event: Done) -> ModelState:
    if state.phase is not event.phase or state.candidate is None:
        return state
    replace = msgspec.structs.replace
    if state.phase is Phase.TRIAL:
        return replace(
            state,
            phase=Phase.COMMITTED,
            previous=state.running,
            running=state.candidate,
            candidate=None,
            reason="",
            trial_boots=0,
        )
    if state.phase not in _NEXT:
        return state
    baseline = event.baseline if state.phase is Phase.TESTING else state.baseline
    return replace(state, phase=_NEXT[state.phase], baseline=baseline)


def _end(
    state: ModelState, phase: Literal[Phase.REFUSED, Phase.ROLLED_BACK], reason: str
) -> ModelState:
    if state.phase not in IN_MOTION or state.candidate is None:
        return state
    blocked = state.blocked
    if phase is Phase.ROLLED_BACK:
        mark = Blocked(
            release=state.candidate.release,
            variant=state.candidate.variant,
            attempt=state.candidate.attempt,
        )
        blocked = (*blocked, mark)[-MAX_BLOCKED:]
    return msgspec.structs.replace(
        state, phase=phase, reason=reason, blocked=blocked, trial_boots=0
    )


def _restarted(state: ModelState) -> ModelState:
    if state.phase is not Phase.TRIAL:
        return state
    boots = state.trial_boots + 1
    if boots >= MAX_TRIAL_BOOTS:
        return _end(
            state, Phase.ROLLED_BACK, f"the agent had to start {boots} times during its trial"
        )
    return msgspec.structs.replace(state, trial_boots=boots)


def same_release(a: DesiredModel | None, b: DesiredModel | None) -> bool:
    """Whether both are the same variant of the same release."""
    return a is not None and b is not None and (a.release, a.variant) == (b.release, b.variant)
