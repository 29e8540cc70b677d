"""Why a wave advanced, waits or stopped: one sentence, with its numbers.

The sentence is made where the decision is made, of the values it was made of, and kept with it:
command line, REST and console print the same one.
"""

import datetime as dt
from collections.abc import Sequence

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from cloud_sync.windows import told as told_windows
from fleet.rollouts.choose import Chosen
from fleet.rollouts.gates import FAILURES, count
from fleet.rollouts.groups import told
from fleet.rollouts.observe import DeviceObservation, Proceed, Retreat, RolloutState, Waiting
from fleet.rollouts.opening import told_in_vain
from fleet.rollouts.policy import Policy
from fleet.rollouts.survey import Survey
from fleet.rollouts.timing import spell

_MAX_QUOTED = 3


def release_name(rollout: RolloutState) -> str:
    """`digits:1.2.0`, `configuration site-north@4`."""
    if rollout.model.startswith(":"):
        return f"{rollout.model[1:]} {rollout.release_version}"
    return f"{rollout.model}:{rollout.release_version}"


def wave_name(policy: Policy, rollout: RolloutState) -> str:
    """`wave 2 of 4 (5 %)`."""
    last = len(policy.waves) - 1
    number = min(rollout.wave, last)
    return f"wave {number + 1} of {last + 1} ({policy.waves[number]})"


def other(rollout: RolloutState) -> str:
    """What another rollout of the same devices is called: it is of this model or configuration."""
    what = "configuration" if rollout.model.startswith(":") else "model"
    return f"another rollout of this {what}"


def nobody(rollout: RolloutState, seen: Survey) -> str:
    """There is no device to give the release to."""
    refusing, unfit, busy = first(seen.refusing), first(seen.unfit), first(seen.busy)
    if not seen.devices:
        why = "the selector chooses no device"
    elif refusing:
        why = f"{refusing.device} refused it: {refusing.reason}"
    elif unfit:
        why = f"{unfit.device}: {unfit.unfit or 'nothing is known of it yet'}"
    elif busy:
        why = f"{other(rollout)} has {busy.device}"
    else:
        why = "nothing is known of its devices yet"
    what = "configuration" if rollout.model.startswith(":") else "release"
    return f"It waits for a device that the {what} fits ({why.rstrip('.')})."


def too_early(rollout: RolloutState, begins: float, left: float) -> str:
    """The policy's start time is to come."""
    at = dt.datetime.fromtimestamp(begins, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{release_name(rollout)} begins at {at}, in {spell(left)}."


def unapproved(policy: Policy, rollout: RolloutState) -> str:
    """Someone has to approve it, or this wave of it."""
    what = wave_name(policy, rollout) if policy.approval == "each-wave" else "the rollout"
    return f"{what[:1].upper()}{what[1:]} waits for approval: edgeml rollout approve {rollout.id}"


def stopped(
    policy: Policy, rollout: RolloutState, gates: Sequence[GateResult], *, pauses: bool
) -> str:
    """A gate failed."""
    bad = [gate for gate in gates if gate.result is Verdict.FAIL]
    gate = next((gate for gate in bad if gate.name == FAILURES), bad[0])
    if pauses:
        then = (
            f"The devices stay as they are; retry, override or abort it: "
            f"edgeml rollout explain {rollout.id}"
        )
    elif policy.on_failure == "rollback":
        then = "Every device that it touched was told to go back to what it ran before."
    else:
        then = "The devices that failed were told to go back to what they ran before."
    where, how = wave_name(policy, rollout), "paused" if pauses else "halted"
    return f"{release_name(rollout)} was {how} in {where}: {gate.reason.rstrip('.')}. {then}"


def waiting(policy: Policy, rollout: RolloutState, seen: Survey, chosen: Chosen) -> str:
    """Devices of the wave are still on their way, or have to wait before they are."""
    share = f"{seen.done} of {count(seen.reached)} committed with evidence"
    text, assigned = f"In {wave_name(policy, rollout)}, {share}", len(chosen.assigns)
    if assigned:
        text += f", {assigned} more {'is' if assigned == 1 else 'are'} given it now"
    moving = [d for d in seen.moving if d.phase is not None]
    given = [d for d in seen.moving if d.phase is None]
    if moving:
        text += f"; {_standing(_oldest(moving))}"
        text += _others(len(moving) - 1)
    elif given and not assigned:
        text += f"; {_oldest(given).device} was given it and has not answered yet"
    if seen.cooling:
        _, found = min(seen.cooling, key=lambda one: (one[0], one[1].device.device))
        text += f"; {found.device.device} {found.why.rstrip('.')}, and is tried again after "
        text += f"{spell(policy.retries.cool_down_s)} (attempt {found.device.tries + 1})"
        text += _others(len(seen.cooling) - 1, "waits", "wait")
    if policy.together is not None:
        text += told(policy.together, seen.groups.values())
    return f"{text}{_slowed(policy, seen, chosen)}."


def groups_going(policy: Policy, rollout: RolloutState, going: Sequence[Proceed | Retreat]) -> str:
    """Groups switch, commit, or go back now."""
    first_one, more = going[0].reason, ""
    if len(going) > 1:
        more = f", and {len(going) - 1} more steps of groups are taken"
    return f"In {wave_name(policy, rollout)}, {first_one.rstrip('.')}{more}."


def _slowed(policy: Policy, seen: Survey, chosen: Chosen) -> str:
    left = seen.ungiven + len(seen.due)
    match chosen.slowed.waits_for if chosen.slowed else Waiting.NOTHING:
        case Waiting.WINDOW:
            verb = "waits" if left == 1 else "wait"
            where = f"the window ({told_windows(policy.windows)})" if policy.windows else ""
            own = "the update windows of their configuration" if _have_windows(seen) else ""
            vain = f"; {told_in_vain(policy, chosen.in_vain)}" if chosen.in_vain else ""
            return f"; {count(left)} {verb} for {' and '.join(filter(None, (where, own)))}{vain}"
        case Waiting.RATE if policy.rate:
            rate = policy.rate.now(len(seen.given_at), seen.done)
            return f"; {rate} a minute are given it, {left} more follow"
        case _:
            return ""


def _have_windows(seen: Survey) -> bool:
    fresh = (d for c in seen.classes.values() if c.taken for d in c.fresh)
    return any(d.windows for d in (*seen.due, *fresh))


def undecided(policy: Policy, rollout: RolloutState, gate: GateResult) -> str:
    """A gate cannot be decided yet."""
    what = "devices" if gate.unit == "devices" else "samples"
    needed = f"; {gate.n_needed} {what} would decide it, there are {gate.n}"
    said = gate.n_needed is None or "would decide it" in gate.reason
    more = "" if said else needed
    where = wave_name(policy, rollout)
    return f"In {where} a gate is undecided: {gate.reason.rstrip('.')}{more}."


def soaking(
    policy: Policy, rollout: RolloutState, seen: Survey, gates: Sequence[GateResult], left: float
) -> str:
    """All gates pass; the wave has to hold them."""
    where, soak_s = wave_name(policy, rollout), policy.soak_of(rollout.wave)
    held = f"all {len(gates)} gates hold on {count(seen.reached)}"
    return f"In {where} {held}; it soaks for {left:.0f} of {soak_s:.0f} s more."


def advanced(
    policy: Policy, rollout: RolloutState, seen: Survey, gates: Sequence[GateResult]
) -> str:
    """The wave held its gates and the next begins."""
    where = wave_name(policy, rollout)
    return f"{where.capitalize()} {_held(policy, rollout, seen, gates)}; the next begins."


def completed(
    policy: Policy, rollout: RolloutState, seen: Survey, gates: Sequence[GateResult]
) -> str:
    """The last wave held its gates."""
    held = _held(policy, rollout, seen, gates)
    failed = f", {len(seen.failures)} failed," if seen.failures else ""
    text = f"{release_name(rollout)} is on {count(seen.done)}{failed} and {held}"
    if seen.able > seen.reached:
        text += f"; the policy's waves end at {seen.reached} of {count(seen.able)}"
    if seen.moving:
        text += f"; {count(len(seen.moving))} had not finished ({_oldest(seen.moving).device})"
    refusing, unfit, busy = first(seen.refusing), first(seen.unfit), first(seen.busy)
    if refusing or unfit:
        who = f"{refusing.device} refused it: {refusing.reason}" if refusing else ""
        who = who or (f"{unfit.device}: {unfit.unfit}" if unfit else "")
        number = len(seen.refusing) + len(seen.unfit)
        text += f"; {count(number)} selected cannot take it, {who.rstrip('.')}"
    if busy:
        text += f"; {other(rollout)} has {count(len(seen.busy))} ({busy.device})"
    return f"{text}."


def first(devices: Sequence[DeviceObservation]) -> DeviceObservation | None:
    """The first by name; None of none."""
    return min(devices, key=lambda d: d.device, default=None)


def _oldest(devices: Sequence[DeviceObservation]) -> DeviceObservation:
    return min(devices, key=lambda d: (d.assigned_at or 0.0, d.device))


def _held(policy: Policy, rollout: RolloutState, seen: Survey, gates: Sequence[GateResult]) -> str:
    """`held 6 gates for 60 s on 3 devices: ...`, quoting the gates that say most."""
    soak_s = policy.soak_of(rollout.wave)
    text = f"held {len(gates)} gates for {soak_s:.0f} s on {count(seen.reached)}"
    quoted = [quote(gate) for gate in gates if gate.name != FAILURES and gate.value is not None]
    named = [q for q in quoted if q][:_MAX_QUOTED]
    return f"{text} ({'; '.join(named)})" if named else text


def quote(gate: GateResult) -> str:
    """A gate in few words: `live.latency_p95 3.1 ms against 15 ms`; empty without numbers."""
    if gate.value is None or gate.bound is None or gate.name.endswith(": committed"):
        return ""
    name = gate.name.rpartition(": ")[2]
    unit = f" {gate.unit}" if gate.unit else ""
    return f"{name} {figure(gate.value)}{unit} against {figure(gate.bound)}{unit}"


def figure(value: float) -> str:
    """A number with as many digits as say something."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004


def _others(number: int, one: str = "is on the way", many: str = "are on the way") -> str:
    return f", and {number} more {one if number == 1 else many}" if number else ""


def _standing(device: DeviceObservation) -> str:
    phase = "in its trial" if device.phase is Phase.TRIAL else str(device.phase or "")
    if device.phase is Phase.COMMITTED:
        return f"{device.device} has committed and its evidence is awaited"
    return f"{device.device} is {phase}" + (
        f" ({device.reason.rstrip('.')})" if device.reason else ""
    )
