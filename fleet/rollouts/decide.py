"""The rollout engine: `decide(policy, rollout, devices, now, up_since) -> Decision`. Pure.

It remembers nothing: called with the same persisted state it says the same, so that a fleet
that is killed at any point goes on where it was. It advances only when every gate of the wave
passes, halts on the first that fails, and otherwise waits and says for what.
"""

from collections import Counter
from collections.abc import Sequence

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts import explain
from fleet.rollouts.gates import failure, is_done, is_refusing, wave_gates
from fleet.rollouts.observe import (
    Action,
    Advance,
    Assign,
    Complete,
    Decision,
    DeviceObservation,
    Halt,
    Hold,
    Restore,
    RolloutState,
    RolloutStatus,
)
from fleet.rollouts.policy import Policy

Devices = Sequence[DeviceObservation]
_AT_REST = frozenset({Phase.COMMITTED, Phase.ROLLED_BACK, Phase.REFUSED})


def decide(
    policy: Policy, rollout: RolloutState, devices: Devices, now: float, up_since: float = 0.0
) -> Decision:
    """What to do now.

    Args:
        policy: the rollout's policy.
        rollout: its persisted state.
        devices: every device that the policy selects or that the rollout has assigned, in any
            order.
        now: Unix seconds.
        up_since: since when the fleet listens; no device is late for what was before.
    """
    devices = sorted(devices, key=lambda d: d.device)
    match rollout.status:
        case RolloutStatus.PAUSED:
            return _say(rollout.reason or "It is paused; an operator resumes it.")
        case RolloutStatus.COMPLETED:
            name = explain.release_name(rollout)
            return _say(f"{name} is on every device selected that it fits.")
        case RolloutStatus.HALTED | RolloutStatus.ABORTED:
            return _wind_down(policy, rollout, devices)
        case RolloutStatus.RUNNING:
            return _drive(policy, rollout, devices, now, up_since)


def wave_devices(policy: Policy, rollout: RolloutState, devices: Devices) -> Devices:
    """The devices that the present wave reaches: all that are assigned, then fresh ones.

    Fresh devices are taken in turn from each hardware class, so that a small wave meets as many
    classes as it can. Those that nothing fits, that refuse, or that another rollout has, are
    passed over.
    """
    able = _able(devices)
    assigned = sorted(
        (d for d in able if d.assigned_at is not None), key=lambda d: (d.assigned_at, d.device)
    )
    turns = Counter(d.hardware_class for d in assigned)
    fresh: list[tuple[int, str, DeviceObservation]] = []
    for device in sorted((d for d in able if d.assigned_at is None), key=lambda d: d.device):
        fresh.append((turns[device.hardware_class], device.hardware_class, device))
        turns[device.hardware_class] += 1
    fresh.sort(key=lambda turn: (turn[0], turn[1], turn[2].device))
    wave = policy.waves[min(rollout.wave, len(policy.waves) - 1)]
    room = max(0, wave.size(len(able)) - len(assigned)) if able else 0
    return [*assigned, *(device for _, _, device in fresh[:room])]


def _able(devices: Devices) -> list[DeviceObservation]:
    return [
        d
        for d in devices
        if (d.variant or d.assigned_variant) and not d.busy and not is_refusing(d)
    ]


def _drive(
    policy: Policy, rollout: RolloutState, devices: Devices, now: float, up_since: float
) -> Decision:
    wave = wave_devices(policy, rollout, devices)
    if not wave:
        return _say(explain.nobody(devices))
    gates = wave_gates(wave, rollout.release, policy, now, up_since)
    if any(gate.result is Verdict.FAIL for gate in gates):
        sentence = explain.halted(policy, rollout, gates)
        return Decision(actions=(Halt(reason=sentence),), sentence=sentence, gates=gates)
    assigns = _assign(policy, wave, devices)
    pending = [
        d
        for d in wave
        if not is_done(d, rollout.release)
        and not failure(d, rollout.release, policy, now, up_since)
    ]
    if assigns or pending:
        sentence = explain.waiting(policy, rollout, wave, pending, len(assigns))
        return _wait(rollout, assigns, sentence, gates)
    doubts = [gate for gate in gates if gate.result is Verdict.UNDECIDED]
    if doubts:
        return _wait(rollout, (), explain.undecided(policy, rollout, doubts[0]), gates)
    if rollout.wave_held_since is None:
        sentence = explain.soaking(policy, rollout, wave, gates, policy.soak_s)
        return Decision(actions=(Hold(since=now),), sentence=sentence, gates=gates)
    left = rollout.wave_held_since + policy.soak_s - now
    if left > 0:
        sentence = explain.soaking(policy, rollout, wave, gates, left)
        return Decision(actions=(), sentence=sentence, gates=gates)
    return _go_on(policy, rollout, wave, devices, gates)


def _go_on(
    policy: Policy,
    rollout: RolloutState,
    wave: Devices,
    devices: Devices,
    gates: tuple[GateResult, ...],
) -> Decision:
    """The wave held: begin the next that reaches anyone new, or complete."""
    able = len(_able(devices))
    for number in range(rollout.wave + 1, len(policy.waves)):
        if policy.waves[number].size(able) > len(wave):
            sentence = explain.advanced(policy, rollout, wave, gates)
            return Decision(actions=(Advance(wave=number),), sentence=sentence, gates=gates)
    sentence = explain.completed(policy, rollout, wave, devices, gates)
    return Decision(actions=(Complete(),), sentence=sentence, gates=gates)


def _wait(
    rollout: RolloutState,
    assigns: tuple[Assign, ...],
    sentence: str,
    gates: tuple[GateResult, ...],
) -> Decision:
    """Wait; a wave that was soaking does not hold its gates any more."""
    ends: tuple[Action, ...] = () if rollout.wave_held_since is None else (Hold(since=None),)
    return Decision(actions=(*assigns, *ends), sentence=sentence, gates=gates)


def _assign(policy: Policy, wave: Devices, devices: Devices) -> tuple[Assign, ...]:
    """The wave's devices that have no part in it yet, within the limit in flight.

    A device that refused is given what the plan resolves for it now, which is another variant:
    with the same one it would not be in the wave.
    """
    flying = sum(d.assigned_at is not None and d.phase not in _AT_REST for d in devices)
    room = max(0, policy.limits.in_flight - flying)
    due = [d for d in wave if d.variant and (d.assigned_at is None or d.phase is Phase.REFUSED)]
    return tuple(Assign(device=d.device, variant=d.variant) for d in due[:room])


def _wind_down(policy: Policy, rollout: RolloutState, devices: Devices) -> Decision:
    """Carry out the failure policy: devices touched get back what they ran before, or stay."""
    if policy.on_failure == "pause":
        return _say(rollout.reason)
    touched = [d.device for d in devices if d.assigned_at is not None and not d.restored]
    actions: tuple[Action, ...] = tuple(Restore(device=device) for device in touched)
    return Decision(actions=actions, sentence=rollout.reason, gates=())


def _say(sentence: str) -> Decision:
    return Decision(actions=(), sentence=sentence, gates=())
