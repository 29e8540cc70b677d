"""The rollout engine: `decide(policy, rollout, devices, now, up_since) -> Decision`. Pure.

It remembers nothing: called with the same persisted state it says the same, so that a fleet
that is killed at any point goes on where it was. It advances only when every gate of the wave
passes, stops on the first that fails, and otherwise waits and says for what. It does not know what
is rolled out, a release or a configuration: it sees devices and what they have shown.
"""

from collections.abc import Iterable

from cloud_sync.evidence import GateResult, Verdict
from fleet.rollouts import explain
from fleet.rollouts.choose import Chosen, choose, wave_devices
from fleet.rollouts.gates import is_through, wave_gates
from fleet.rollouts.groups import groups_of, steps, withdrawn
from fleet.rollouts.observe import (
    Action,
    Advance,
    Block,
    Complete,
    Decision,
    DeviceObservation,
    Halt,
    Hold,
    Pause,
    Restore,
    RolloutState,
    RolloutStatus,
    Waiting,
)
from fleet.rollouts.policy import Policy
from fleet.rollouts.standing import failure
from fleet.rollouts.survey import Survey, survey

Gates = tuple[GateResult, ...]
__all__ = ["decide", "wave_devices"]


def decide(
    policy: Policy,
    rollout: RolloutState,
    devices: Iterable[DeviceObservation],
    now: float,
    up_since: float = 0.0,
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
    if policy.together is not None:
        devices = list(devices)
    match rollout.status:
        case RolloutStatus.DRAFT:
            sentence = f"It is a draft; it begins with: edgeml rollout start {rollout.id}"
            return _say(sentence, Waiting.START)
        case RolloutStatus.PAUSED:
            why = rollout.reason or "It is paused; an operator resumes it."
            return _finish_groups(policy, rollout, devices, now, up_since=up_since, why=why)
        case RolloutStatus.COMPLETED:
            name = explain.release_name(rollout)
            return _say(f"{name} is on every device selected that it fits.")
        case RolloutStatus.HALTED | RolloutStatus.ABORTED:
            return _wind_down(policy, rollout, devices, now, up_since)
        case RolloutStatus.RUNNING:
            seen = survey(policy, rollout, devices, now, up_since)
            return _drive(policy, rollout, seen, now, up_since)


def _drive(
    policy: Policy, rollout: RolloutState, seen: Survey, now: float, up_since: float
) -> Decision:
    barred = _barred(policy, rollout, now)
    if not seen.reached and not barred:
        return _say(explain.nobody(rollout, seen), Waiting.DEVICES)
    gates = wave_gates(seen, policy, rollout) if seen.reached else ()
    if any(gate.result is Verdict.FAIL for gate in gates):
        return _stop(policy, rollout, seen, gates)
    going = steps(policy, rollout, seen.groups.values(), now, up_since) if seen.groups else []
    if going:
        ends = () if rollout.wave_held_since is None else (Hold(since=None),)
        said = explain.groups_going(policy, rollout, going)
        return Decision(
            actions=(*going, *ends), sentence=said, gates=gates, waits_for=Waiting.DEVICES
        )
    if barred:
        return _wait(rollout, Chosen(), barred, gates)
    chosen = choose(policy, seen, now)
    parted = any(group.under_way for group in seen.groups.values())
    if chosen.assigns or parted or not is_through(seen, policy, rollout):
        sentence = explain.waiting(policy, rollout, seen, chosen)
        wait = chosen.slowed or _say(sentence, Waiting.DEVICES)
        return _wait(rollout, chosen, _say(sentence, wait.waits_for, wait.until), gates)
    doubts = [gate for gate in gates if gate.result is Verdict.UNDECIDED]
    if doubts:
        sentence = explain.undecided(policy, rollout, doubts[0])
        return _wait(rollout, chosen, _say(sentence, Waiting.GATE), gates)
    soak_s = policy.soak_of(rollout.wave)
    since = now if rollout.wave_held_since is None else rollout.wave_held_since
    left = since + soak_s - now
    if rollout.wave_held_since is None or left > 0:
        return Decision(
            actions=(Hold(since=now),) if rollout.wave_held_since is None else (),
            sentence=explain.soaking(policy, rollout, seen, gates, left),
            gates=gates,
            waits_for=Waiting.SOAK,
            until=since + soak_s,
        )
    return _go_on(policy, rollout, seen, gates)


def _barred(policy: Policy, rollout: RolloutState, now: float) -> Decision | None:
    """Why nobody may be given anything now, if so: it is too early, or was not approved."""
    if policy.start_at is not None and now < (begins := policy.start_at.timestamp()):
        sentence = explain.too_early(rollout, begins, begins - now)
        return _say(sentence, Waiting.START_TIME, begins)
    approved = {approval.wave for approval in rollout.approvals}
    asked = rollout.wave if policy.approval == "each-wave" else 0
    if policy.approval and asked not in approved:
        return _say(explain.unapproved(policy, rollout), Waiting.APPROVAL)
    return None


def _go_on(policy: Policy, rollout: RolloutState, seen: Survey, gates: Gates) -> Decision:
    """The wave held: begin the next that reaches anyone new, or complete."""
    for number in range(rollout.wave + 1, len(policy.waves)):
        if policy.waves[number].size(seen.able_units) > seen.reached_units:
            sentence = explain.advanced(policy, rollout, seen, gates)
            return Decision(actions=(Advance(wave=number),), sentence=sentence, gates=gates)
    sentence = explain.completed(policy, rollout, seen, gates)
    if policy.membership == "continuous":
        sentence = f"{sentence.rstrip('.')}; it goes on with devices that join."
        return Decision(actions=(), sentence=sentence, gates=gates, waits_for=Waiting.DEVICES)
    return Decision(actions=(Complete(),), sentence=sentence, gates=gates)


def _stop(policy: Policy, rollout: RolloutState, seen: Survey, gates: Gates) -> Decision:
    """A gate failed: halt or pause as the policy says, and block the classes if it says so."""
    failed = {gate.name for gate in gates if gate.result is Verdict.FAIL}
    pausing = {one.name for one in policy.thresholds if one.action == "pause"}
    pauses = policy.on_failure == "pause" or failed <= pausing
    sentence = explain.stopped(policy, rollout, gates, pauses=pauses)
    blocks: list[Action] = []
    if policy.block_class:
        for name, of_class in sorted(seen.classes.items()):
            if of_class.failed or any(gate.startswith(f"{name}: ") for gate in failed):
                blocks.append(Block(hardware_class=name, reason=sentence))
    end: Action = Pause(reason=sentence) if pauses else Halt(reason=sentence)
    return Decision(actions=(*blocks, end), sentence=sentence, gates=gates)


def _wait(rollout: RolloutState, chosen: Chosen, why: Decision, gates: Gates) -> Decision:
    """Wait; a wave that was soaking does not hold its gates any more."""
    ends: tuple[Action, ...] = () if rollout.wave_held_since is None else (Hold(since=None),)
    return Decision(
        actions=(*chosen.assigns, *ends),
        sentence=why.sentence,
        gates=gates,
        waits_for=why.waits_for,
        until=why.until,
    )


def _wind_down(
    policy: Policy,
    rollout: RolloutState,
    devices: Iterable[DeviceObservation],
    now: float,
    up_since: float,
) -> Decision:
    """Carry out the failure policy: who gets back what it ran before, and who stays."""
    if policy.on_failure == "pause" and policy.together is None:
        return _say(rollout.reason)
    everyone, failed = policy.on_failure == "rollback", policy.on_failure == "rollback-failed"
    devices = list(devices)
    parted = withdrawn(policy, rollout, devices, now)
    actions = tuple(
        Restore(device=d.device)
        for d in sorted(devices, key=lambda d: d.device)
        if d.assigned_at is not None
        and not d.restored
        and (
            everyone
            or d.device in parted
            or (failed and failure(d, rollout.release, policy, now, up_since))
        )
    )
    return Decision(actions=actions, sentence=rollout.reason, gates=())


def _finish_groups(
    policy: Policy,
    rollout: RolloutState,
    devices: Iterable[DeviceObservation],
    now: float,
    *,
    up_since: float,
    why: str,
) -> Decision:
    """While it is paused, groups that have begun to switch come to an end, and no other begins."""
    if policy.together is None:
        return _say(why, Waiting.OPERATOR)
    groups = groups_of(devices)
    going = steps(policy, rollout, groups, now, up_since, switching=False)
    return Decision(actions=tuple(going), sentence=why, gates=(), waits_for=Waiting.OPERATOR)


def _say(
    sentence: str, waits_for: Waiting = Waiting.NOTHING, until: float | None = None
) -> Decision:
    return Decision(actions=(), sentence=sentence, gates=(), waits_for=waits_for, until=until)
