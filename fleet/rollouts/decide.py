"""The rollout engine: `decide(policy, rollout, devices, now) -> Decision`. Pure.

It remembers nothing: called with the same persisted state it says the same, so that a fleet
that is killed at any point goes on where it was. It advances only when every gate of the wave
passes, halts on the first that fails, and otherwise waits and says for what.
"""

from collections.abc import Sequence

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts.gates import failed, wave_gates
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


def decide(policy: Policy, rollout: RolloutState, devices: Devices, now: float) -> Decision:
    """What to do now.

    Args:
        policy: the rollout's policy.
        rollout: its persisted state.
        devices: every device that the policy selects, in any order.
        now: Unix seconds.
    """
    ordered = sorted(devices, key=lambda d: (d.assigned_at is None, d.assigned_at or 0, d.device))
    if rollout.status is RolloutStatus.PAUSED:
        return _say("It is paused; an operator resumes it.")
    if rollout.status is RolloutStatus.COMPLETED:
        return _say(f"{_name(rollout)} is on every device selected that it fits.")
    if rollout.status in {RolloutStatus.HALTED, RolloutStatus.ABORTED}:
        return _wind_down(policy, rollout, ordered)
    return _drive(policy, rollout, ordered, now)


def wave_devices(policy: Policy, rollout: RolloutState, devices: Devices) -> Devices:
    """The devices that the present wave reaches: those assigned first, then by name.

    Devices that nothing fits, or that another rollout has, are passed over.
    """
    ordered = sorted(devices, key=lambda d: (d.assigned_at is None, d.assigned_at or 0, d.device))
    able = [d for d in ordered if (d.variant or d.assigned_variant) and not d.busy]
    wave = policy.waves[min(rollout.wave, len(policy.waves) - 1)]
    return able[: wave.size(len(able))] if able else []


def _drive(policy: Policy, rollout: RolloutState, devices: Devices, now: float) -> Decision:
    wave = wave_devices(policy, rollout, devices)
    if not wave:
        unfit = [d for d in devices if d.unfit]
        why = f"{unfit[0].device}: {unfit[0].unfit}" if unfit else "no device is selected"
        return _say(f"It waits for a device that the release fits: {why}")
    gates = wave_gates(wave, policy, now)
    where = f"wave {rollout.wave + 1} of {len(policy.waves)}"
    bad = [gate for gate in gates if gate.result is Verdict.FAIL and gate.name == "devices.failed"]
    if bad:
        sentence = f"{_name(rollout)} was halted in {where}: {bad[0].reason}."
        return Decision(actions=(Halt(reason=sentence),), sentence=sentence, gates=gates)
    assigns = _assign(policy, wave, devices)
    pending = [d for d in wave if d.phase is not Phase.COMMITTED and not failed(d)]
    if assigns or pending:
        return Decision(
            actions=assigns, sentence=_waiting(where, wave, pending, len(assigns)), gates=gates
        )
    closed = [g for g in gates if g.result is Verdict.PASS or _is_tolerated(g, policy)]
    if len(closed) < len(gates):
        doubt = next(g for g in gates if g not in closed)
        return Decision(actions=(), sentence=f"In {where}: {doubt.reason}.", gates=gates)
    if rollout.wave_held_since is None:
        return Decision(
            actions=(Hold(since=now),),
            sentence=f"All of {where} committed; it soaks for {policy.soak_s:.0f} s.",
            gates=gates,
        )
    left = rollout.wave_held_since + policy.soak_s - now
    if left > 0:
        sentence = f"All of {where} committed; it soaks for {left:.0f} s more."
        return Decision(actions=(), sentence=sentence, gates=gates)
    if rollout.wave + 1 < len(policy.waves):
        return Decision(
            actions=(Advance(wave=rollout.wave + 1),),
            sentence=f"{where.capitalize()} held its {len(gates)} gates for "
            f"{policy.soak_s:.0f} s on {len(wave)} devices; the next begins.",
            gates=gates,
        )
    return Decision(
        actions=(Complete(),),
        sentence=f"{_name(rollout)} held its gates on all {len(wave)} devices.",
        gates=gates,
    )


def _assign(policy: Policy, wave: Devices, devices: Devices) -> tuple[Assign, ...]:
    """The wave's devices that have no part in it yet, within the limit in flight.

    A device that refused is given what the plan resolves for it now, if that is another
    variant; with the same one it would only refuse again.
    """
    flying = sum(
        d.assigned_at is not None and d.phase not in {Phase.COMMITTED, Phase.ROLLED_BACK}
        for d in devices
    )
    room = max(0, policy.limits.in_flight - flying)
    fresh = [d for d in wave if d.assigned_at is None and d.variant][:room]
    again = [
        d
        for d in wave
        if d.phase is Phase.REFUSED and d.variant and d.variant != d.assigned_variant
    ]
    return tuple(Assign(device=d.device, variant=d.variant) for d in (*fresh, *again))


def _wind_down(policy: Policy, rollout: RolloutState, devices: Devices) -> Decision:
    """Carry out the failure policy: devices touched get back what they ran before."""
    if policy.on_failure == "pause" and rollout.status is RolloutStatus.HALTED:
        return _say(rollout.reason)
    touched = [d for d in devices if d.assigned_at is not None and not d.restored]
    actions: tuple[Action, ...] = tuple(Restore(device=d.device) for d in touched)
    return Decision(actions=actions, sentence=rollout.reason, gates=())


def _is_tolerated(gate: GateResult, policy: Policy) -> bool:
    """Gates of single devices that failed within the failures that the policy allows."""
    return policy.limits.max_failures > 0 and gate.result is Verdict.FAIL


def _waiting(where: str, wave: Devices, pending: Devices, assigned: int) -> str:
    done = len(wave) - len(pending)
    slow = next((d for d in pending if d.phase is Phase.REFUSED), pending[0] if pending else None)
    about = ""
    if slow is not None and slow.phase is not None:
        about = f"; {slow.device} is {slow.phase}" + (f": {slow.reason}" if slow.reason else "")
    given = f", {assigned} more were given it" if assigned else ""
    return f"In {where}, {done} of {len(wave)} devices have committed{given}{about}."


def _name(rollout: RolloutState) -> str:
    return f"{rollout.model}:{rollout.release_version}"


def _say(sentence: str) -> Decision:
    return Decision(actions=(), sentence=sentence, gates=())
