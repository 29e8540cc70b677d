"""Why a wave advanced, waits or stopped: one sentence, with its numbers.

The sentence is made where the decision is made, of the values it was made of, and kept with it:
command line, REST and console print the same one.
"""

from collections.abc import Sequence

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts.gates import FAILURES, count, is_done, is_refusing
from fleet.rollouts.observe import DeviceObservation, RolloutState
from fleet.rollouts.policy import Policy

Devices = Sequence[DeviceObservation]
_MAX_QUOTED = 3


def release_name(rollout: RolloutState) -> str:
    """`digits:1.2.0`."""
    return f"{rollout.model}:{rollout.release_version}"


def wave_name(policy: Policy, rollout: RolloutState) -> str:
    """`wave 2 of 4 (5 %)`."""
    last = len(policy.waves) - 1
    number = min(rollout.wave, last)
    return f"wave {number + 1} of {last + 1} ({policy.waves[number]})"


def nobody(devices: Devices) -> str:
    """There is no device to give the release to."""
    refusing = [d for d in devices if is_refusing(d)]
    unfit = [d for d in devices if d.unfit]
    busy = [d for d in devices if d.busy]
    if not devices:
        why = "the selector chooses no device"
    elif refusing:
        why = f"{refusing[0].device} refused it: {refusing[0].reason}"
    elif unfit:
        why = f"{unfit[0].device}: {unfit[0].unfit}"
    elif busy:
        why = f"another rollout of this model has {busy[0].device}"
    else:
        why = f"nothing is known of {devices[0].device} yet"
    return f"It waits for a device that the release fits ({why.rstrip('.')})."


def halted(policy: Policy, rollout: RolloutState, gates: Sequence[GateResult]) -> str:
    """A gate failed."""
    bad = [gate for gate in gates if gate.result is Verdict.FAIL]
    first = next((gate for gate in bad if gate.name == FAILURES), bad[0])
    then = (
        "Every device that it touched was told to go back to what it ran before."
        if policy.on_failure == "rollback"
        else 'The devices stay as they are (on_failure = "pause").'
    )
    where = wave_name(policy, rollout)
    return f"{release_name(rollout)} was halted in {where}: {first.reason.rstrip('.')}. {then}"


def waiting(
    policy: Policy, rollout: RolloutState, wave: Devices, pending: Devices, assigned: int
) -> str:
    """Devices of the wave are still on their way."""
    done = sum(is_done(d, rollout.release) for d in wave)
    share = f"{done} of {count(len(wave))} committed with evidence"
    text = f"In {wave_name(policy, rollout)}, {share}"
    if assigned:
        text += f", {assigned} more {'is' if assigned == 1 else 'are'} given it now"
    moving = [d for d in pending if d.phase is not None]
    given = [d for d in pending if d.phase is None and d.assigned_at is not None]
    if moving:
        text += f"; {_standing(moving[0])}"
        text += _others(len(moving) - 1)
    elif given and not assigned:
        text += f"; {given[0].device} was given it and has not answered yet"
    return f"{text}."


def undecided(policy: Policy, rollout: RolloutState, gate: GateResult) -> str:
    """A gate cannot be decided yet."""
    needed = f"; {gate.n_needed} samples would decide it, there are {gate.n}"
    more = needed if gate.n_needed is not None else ""
    where = wave_name(policy, rollout)
    return f"In {where} a gate is undecided: {gate.reason.rstrip('.')}{more}."


def soaking(
    policy: Policy, rollout: RolloutState, wave: Devices, gates: Sequence[GateResult], left: float
) -> str:
    """All gates pass; the wave has to hold them."""
    where = wave_name(policy, rollout)
    held = f"all {len(gates)} gates hold on {count(len(wave))}"
    return f"In {where} {held}; it soaks for {left:.0f} of {policy.soak_s:.0f} s more."


def advanced(
    policy: Policy, rollout: RolloutState, wave: Devices, gates: Sequence[GateResult]
) -> str:
    """The wave held its gates and the next begins."""
    where = wave_name(policy, rollout)
    return f"{where.capitalize()} {_held(policy, wave, gates)}; the next begins."


def completed(
    policy: Policy,
    rollout: RolloutState,
    wave: Devices,
    devices: Devices,
    gates: Sequence[GateResult],
) -> str:
    """The last wave held its gates."""
    text = f"{release_name(rollout)} is on {count(len(wave))} and {_held(policy, wave, gates)}"
    taken = {d.device for d in wave}
    left = [d for d in devices if d.device not in taken]
    refusing = [d for d in left if is_refusing(d)]
    unfit = [d for d in left if not d.variant and not d.assigned_variant and d not in refusing]
    busy = [d for d in left if d.busy and d not in refusing and d not in unfit]
    able = len(left) - len(refusing) - len(unfit) - len(busy)
    if able:
        text += f"; the policy's waves end at {len(wave)} of {count(len(wave) + able)}"
    if refusing or unfit:
        who = f"{refusing[0].device} refused it: {refusing[0].reason}" if refusing else ""
        who = who or f"{unfit[0].device}: {unfit[0].unfit}"
        text += f"; {count(len(refusing) + len(unfit))} selected cannot take it, {who.rstrip('.')}"
    if busy:
        text += f"; another rollout of this model has {count(len(busy))} ({busy[0].device})"
    return f"{text}."


def _held(policy: Policy, wave: Devices, gates: Sequence[GateResult]) -> str:
    """`held 6 gates for 60 s on 3 devices: ...`, quoting the gates that say most."""
    text = f"held {len(gates)} gates for {policy.soak_s:.0f} s on {count(len(wave))}"
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


def _others(number: int) -> str:
    if not number:
        return ""
    return f", and {number} more {'is' if number == 1 else 'are'} on the way"


def _standing(device: DeviceObservation) -> str:
    phase = "in its trial" if device.phase is Phase.TRIAL else str(device.phase or "")
    if device.phase is Phase.COMMITTED:
        return f"{device.device} has committed and its evidence is awaited"
    return f"{device.device} is {phase}" + (
        f" ({device.reason.rstrip('.')})" if device.reason else ""
    )
