"""Groups of devices that switch together: prepare, then commit, or all of them back. Pure.

A group is given the release in one transaction, and each member stops when it is prepared. When
all are, they are let into their trials; when all trials have passed, they may commit. Whoever
fails, refuses or is missing when the time is over takes the whole group back, unless the policy
goes on without it. What is wanted of a member is kept with its assignment (`until`), so that one
that was away for days does in the end what its group did.

Waves count groups, and the limit in flight never parts one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cloud_sync.evidence import Verdict
from cloud_sync.messages import Phase
from fleet.rollouts.failures import FailureKind
from fleet.rollouts.observe import DeviceObservation, Proceed, Retreat, RolloutState
from fleet.rollouts.policy import Policy
from fleet.rollouts.standing import AT_REST, Failure, failure, tried_again_at
from fleet.rollouts.together import Together

PREPARED, TRIAL = str(Phase.PREPARED), str(Phase.TRIAL)
_LIVE = "live."  # how the gates of a trial are called
_READY = {
    PREPARED: frozenset({Phase.PREPARED, Phase.TRIAL, Phase.COMMITTED}),
    TRIAL: frozenset({Phase.COMMITTED}),
}
_MAX_NAMED = 3


@dataclass(slots=True)
class Group:
    """The devices of a rollout with one value of the label.

    `members` were given the release, `fresh` were not.
    """

    name: str
    members: list[DeviceObservation] = field(default_factory=list)
    fresh: list[DeviceObservation] = field(default_factory=list)

    @property
    def under_way(self) -> list[DeviceObservation]:
        """The members that are to stop somewhere, and have not ended otherwise."""
        return [m for m in self.members if m.until and not m.restored and not is_over(m)]

    @property
    def until(self) -> str:
        """How far they are let go; `prepared` before the beginning."""
        stages = {m.until for m in self.under_way}
        if stages:
            return TRIAL if TRIAL in stages else PREPARED
        return "" if self.is_committed else PREPARED

    @property
    def is_back(self) -> bool:
        """Whether it was taken back."""
        return any(m.restored for m in self.members)

    @property
    def is_committed(self) -> bool:
        """Whether its members may commit."""
        return any(not (m.until or m.restored) for m in self.members)

    def lost(self, rollout: RolloutState, policy: Policy, now: float) -> list[Failure]:
        """The members for which it must go back, and why: they refused, rolled back or lied."""
        found = []
        for m in self.members:
            if m.restored or (not m.until and m.until_at == m.assigned_at):
                continue  # who joins late takes nobody back
            why = failure(m, rollout.release, policy, now, now)
            if why is not None and why.kind not in _SILENT:
                found.append(why)
            elif m.phase is Phase.REFUSED and m.until:
                reason = f"refused it: {m.reason or 'it gave no reason'}"
                found.append(Failure(device=m, kind=FailureKind.ROLLED_BACK, why=reason, at=now))
        return found


_SILENT = frozenset({FailureKind.TIMED_OUT, FailureKind.NO_EVIDENCE})


@dataclass(frozen=True, slots=True)
class Left:
    """A device with which nothing is done, since its group cannot switch, or went back."""

    why: str


@dataclass(frozen=True, slots=True)
class Due:
    """A device that is given the release again, with its group."""


Standing = Left | Due | Failure


def is_over(device: DeviceObservation) -> bool:
    """Whether the device ended without the release."""
    return device.phase in {Phase.ROLLED_BACK, Phase.REFUSED}


def groups_of(devices: Iterable[DeviceObservation]) -> list[Group]:
    """The groups, by name."""
    found: dict[str, Group] = {}
    for device in devices:
        if device.group:
            group = found.setdefault(device.group, Group(device.group))
            (group.fresh if device.assigned_at is None else group.members).append(device)
    return [found[name] for name in sorted(found)]


def standings(
    policy: Policy,
    rollout: RolloutState,
    devices: Sequence[DeviceObservation],
    now: float,
    up_since: float,
) -> tuple[dict[str, Standing], dict[str, Group]]:
    """Of the devices that stand otherwise than they would alone, how; and the groups by name."""
    together = policy.together
    assert together is not None
    apart: dict[str, Standing] = {}
    found = groups_of(devices)
    for group in found:
        name = called(together, group)
        if group.is_back:
            apart |= _of_back(policy, rollout, group, now, up_since)
        why = ""
        if group.under_way:
            why = f"its group {name} is switching, and it follows then"
        elif group.is_back:
            why = f"its group {name} went back"
        elif not group.members:
            why = _unable(together, group)
        if why:
            apart |= {d.device: Left(why) for d in group.fresh if d.variant and not d.busy}
    return apart, {group.name: group for group in found}


def left_out(together: Together, devices: Iterable[DeviceObservation]) -> dict[str, str]:
    """Of devices that have no part in a rollout yet, those whose group cannot switch, and why."""
    return {
        device.device: why
        for group in groups_of(devices)
        if (why := _unable(together, group))
        for device in group.fresh
        if device.variant
    }


def _unable(together: Together, group: Group) -> str:
    """Why a group that has no part in the rollout yet can have none; empty if it can."""
    unable = [d for d in group.fresh if d.busy or not d.variant]
    if not unable or together.on_missing == "without":
        return ""
    one = min(unable, key=lambda d: d.device)
    reason = one.unfit or "another rollout has it"
    return f"its group {called(together, group)} waits for {one.device}: {reason}"


def _of_back(
    policy: Policy, rollout: RolloutState, group: Group, now: float, up_since: float
) -> dict[str, Standing]:
    """How the members of a group that went back stand: who is why, and whether it goes again."""
    culprits = _culprits(policy, rollout, group, now, up_since)
    retried = [tried_again_at(found, policy) for found in culprits.values()]
    replanned = [m for m in group.members if m.phase is Phase.REFUSED and m.variant]
    due = (
        any(m.again for m in group.members)
        or any(at is not None and at <= now for at in retried)
        or any(m.variant != m.assigned_variant for m in replanned)
    )
    able = all(m.variant and not m.busy for m in group.members)
    if due and able:
        return {m.device: Due() for m in group.members}
    why = f"its group {called(policy.together, group)} went back"
    apart: dict[str, Standing] = {}
    for m in group.members:
        refused = f"it refused: {m.reason}" if m.phase is Phase.REFUSED else why
        apart[m.device] = culprits.get(m.device) or Left(refused)
    return apart


def _culprits(
    policy: Policy, rollout: RolloutState, group: Group, now: float, up_since: float
) -> dict[str, Failure]:
    """The members of a group that went back for which it did."""
    together = policy.together
    assert together is not None
    failed = {}
    for m in group.members:
        if m.phase in AT_REST:
            found = failure(m, rollout.release, policy, now, now)
            if found is not None and found.kind not in _SILENT:
                failed[m.device] = found
    if failed or any(m.phase is Phase.REFUSED for m in group.members):
        return failed
    for m in group.members:
        if m.until and not _is_ready(m):
            at = _ends(together, m, up_since)
            failed[m.device] = Failure(
                device=m, kind=FailureKind.TIMED_OUT, why=_missed(together, m), at=min(at, now)
            )
    return failed


def steps(
    policy: Policy,
    rollout: RolloutState,
    groups: Iterable[Group],
    now: float,
    up_since: float,
    *,
    switching: bool = True,
) -> list[Proceed | Retreat]:
    """What is to be done with groups under way; without `switching` none goes into its trial."""
    together = policy.together
    assert together is not None
    found: list[Proceed | Retreat] = []
    for group in groups:
        if group.is_back:
            continue
        if together.on_missing == "abort":
            lost = group.lost(rollout, policy, now)
            if lost:
                found.append(_retreat(together, group, f"{lost[0].device.device} {lost[0].why}"))
                continue
        found += _on(together, group, now, up_since, switching=switching)
    return found


def withdrawn(
    policy: Policy, rollout: RolloutState, devices: Iterable[DeviceObservation], now: float
) -> set[str]:
    """Of a rollout that has ended, the devices that go back so that no group stays parted."""
    together = policy.together
    found: set[str] = set()
    for group in groups_of(devices) if together else ():
        parted = bool(together and together.on_missing == "abort")
        if group.under_way or group.is_back or (parted and group.lost(rollout, policy, now)):
            found |= {m.device for m in group.members}
    return found


def _on(
    together: Together, group: Group, now: float, up_since: float, *, switching: bool
) -> list[Proceed | Retreat]:
    """Let a group that is under way go on, or back, or neither yet."""
    waiting, until = group.under_way, group.until
    if not waiting:
        return []
    missing = [m for m in waiting if not _is_ready(m)]
    late = [m for m in missing if now > _ends(together, m, up_since)]
    if late and together.on_missing == "abort":
        return [_retreat(together, group, f"{late[0].device} {_missed(together, late[0])}")]
    if len(late) < len(missing) or (until == PREPARED and not switching):
        return []
    ready = tuple(sorted(m.device for m in waiting if _is_ready(m)))
    left = tuple(sorted(m.device for m in missing))
    found: list[Proceed | Retreat] = []
    name = called(together, group)
    if ready:
        switch = until == PREPARED
        at = now + together.switch_after_s if switch and together.switch_after_s else 0.0
        said = f"all {len(ready)} of {name}" if not left else f"{len(ready)} of {name}"
        done = "are prepared: they switch" if until == PREPARED else "passed: they commit"
        found.append(
            Proceed(
                group=group.name,
                devices=ready,
                until=TRIAL if until == PREPARED else "",
                at=at,
                by=now + together.commit_timeout_s if switch else 0.0,
                reason=f"{said} {done}",
            )
        )
    if left:
        reason = f"{name} goes on without {_named(left)}: {_missed(together, missing[0])}"
        found.append(Proceed(group=group.name, devices=left, until="", reason=reason))
    return found


def _retreat(together: Together, group: Group, why: str) -> Retreat:
    reason = f"{called(together, group)} goes back: {why.rstrip('.')}"
    names = tuple(sorted(m.device for m in group.members))
    return Retreat(group=group.name, devices=names, reason=reason)


def told(together: Together, groups: Iterable[Group]) -> str:
    """What groups wait for: `; line=7 waits for 2 of 5 to be prepared (cam-3, cam-4)`."""
    waits = []
    for group in groups:
        missing = sorted(m.device for m in group.under_way if not _is_ready(m))
        if missing:
            what = "be prepared" if group.until == PREPARED else "pass their trials"
            many = f"{len(missing)} of {len(group.under_way)} to {what} ({_named(missing)})"
            waits.append((group.until, f"{called(together, group)} waits for {many}"))
    if not waits:
        return ""
    waits.sort(key=lambda one: one[0], reverse=True)  # those that have switched first
    more = f", and {len(waits) - 1} more groups wait" if len(waits) > 1 else ""
    return f"; {waits[0][1]}{more}"


def called(together: Together | None, group: Group) -> str:
    """A group's name: `line=7`."""
    return f"{together.label if together else ''}={group.name}"


def _is_ready(device: DeviceObservation) -> bool:
    """Whether a member has come as far as it is let go."""
    if device.phase in _READY[device.until]:
        return True
    if device.until == PREPARED or device.phase is not Phase.TRIAL:
        return False
    shown = [gate for gate in device.gates if gate.name.startswith(_LIVE)]
    return bool(shown) and not any(gate.result is Verdict.FAIL for gate in shown)


def _ends(together: Together, device: DeviceObservation, up_since: float) -> float:
    """When a member's time is over; it does not run while the fleet does not listen."""
    preparing = device.until == PREPARED
    timeout = together.prepare_timeout_s if preparing else together.commit_timeout_s
    return max(device.until_at or 0.0, up_since) + timeout


def _missed(together: Together, device: DeviceObservation) -> str:
    if device.until == PREPARED:
        return f"was not prepared within {together.prepare_timeout_s:.0f} s"
    return f"has not passed its trial within {together.commit_timeout_s:.0f} s"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"{', '.join(names[:_MAX_NAMED])}{more}"
