"""Which devices are given the release now: within the wave, limits, windows and rate."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from operator import attrgetter

from fleet.rollouts.observe import (
    Assign,
    Decision,
    DeviceObservation,
    RolloutState,
    Waiting,
)
from fleet.rollouts.opening import Opens, in_vain, opening
from fleet.rollouts.policy import Policy
from fleet.rollouts.standing import AT_REST
from fleet.rollouts.survey import Survey, survey
from fleet.rollouts.timing import given_lately
from fleet.rollouts.units import Unit, unit

_NAME = attrgetter("device")


@dataclass(frozen=True)
class Chosen:
    """Who is given the release now, and what keeps it from others, said in words."""

    assigns: tuple[Assign, ...] = ()
    slowed: Decision | None = None
    in_vain: Sequence[DeviceObservation] = ()


def choose(policy: Policy, seen: Survey, now: float) -> Chosen:
    """The devices of the present wave that are due, within all limits.

    Those that are tried again come first: a device that refused is given what the plan resolves
    for it now, which is another variant; with the same one it would not be in the wave. Then fresh
    ones, in turn from each hardware class.
    """
    opens = opening(policy, now)
    room = max(0, policy.limits.in_flight - seen.flying)
    pace, next_at = _pace(policy, seen, now)
    due = sorted(seen.due, key=lambda d: (d.assigned_at or 0.0, d.device))
    together = policy.together is not None
    taken = (_whole_groups if together else _singly)(seen, due, room, pace, opens)
    assigns = tuple(
        Assign(device=d.device, variant=d.variant, group=d.group, until=_until(seen, d))
        for d in taken
    )
    if assigns:
        return Chosen(assigns=assigns)
    if together:
        units = _units(seen, due)
        waiting = [device for members in units for device in members]
        closed_s = min((max(map(opens, members)) for members in units), default=0.0)
    else:
        waiting = [*due, *_reached(seen)]
        closed_s = min(map(opens, waiting), default=0.0)
    if closed_s:
        slowed = _why(Waiting.WINDOW, now + closed_s)
        return Chosen(slowed=slowed, in_vain=in_vain(policy, waiting, now))
    if waiting and room and not pace:
        return Chosen(slowed=_why(Waiting.RATE, next_at))
    if seen.cooling and not waiting and not seen.moving:
        return Chosen(slowed=_why(Waiting.COOL_DOWN, min(at for at, _ in seen.cooling)))
    return Chosen()


def wave_devices(
    policy: Policy, rollout: RolloutState, devices: Sequence[DeviceObservation], now: float = 0.0
) -> list[DeviceObservation]:
    """The devices that the present wave reaches: all that are assigned, then fresh ones.

    Those that nothing fits, that refuse, or that another rollout has, are passed over.
    """
    seen = survey(policy, rollout, devices, now, now)
    left = {d.device for d in seen.refusing}
    assigned = [d for d in devices if d.assigned_at is not None and d.device not in left]
    assigned.sort(key=lambda d: (d.assigned_at or 0.0, d.device))
    return [*assigned, *_fresh(seen, len(devices), lambda _: 0.0)]


def _fresh(seen: Survey, most: int, opens: Opens) -> list[DeviceObservation]:
    """At most so many devices that the wave reaches and that were never given the release."""
    if most <= 0:
        return []
    turns: list[tuple[int, str, str, DeviceObservation]] = []
    for name, of_class in seen.classes.items():
        number = min(of_class.taken, most)
        if not number:
            continue
        able = [d for d in of_class.fresh if not opens(d)]
        for index, device in enumerate(nsmallest(number, able, key=_NAME)):
            turns.append((of_class.assigned + index, name, device.device, device))
    turns.sort(key=lambda turn: turn[:3])
    return [device for *_, device in turns[:most]]


def _singly(
    seen: Survey, due: Sequence[DeviceObservation], room: int, pace: int, opens: Opens
) -> list[DeviceObservation]:
    taken: list[DeviceObservation] = []
    for device in due:
        on_its_way = device.phase not in AT_REST
        if len(taken) < pace and (room or on_its_way) and not opens(device):
            taken.append(device)
            room -= not on_its_way
    return taken + _fresh(seen, min(room, pace - len(taken)), opens)


def _whole_groups(
    seen: Survey, due: Sequence[DeviceObservation], room: int, pace: int, opens: Opens
) -> list[DeviceObservation]:
    """Whole groups that have room together; one that never has goes when nothing else flies."""
    most = min(room, pace)
    taken: list[DeviceObservation] = []
    for members in _units(seen, due):
        if any(map(opens, members)):
            continue
        alone = not taken and not seen.flying and most > 0
        if len(taken) + len(members) > most and not alone:
            break
        taken += members
    return taken


def _units(seen: Survey, due: Sequence[DeviceObservation]) -> list[list[DeviceObservation]]:
    """What goes as one: groups that are given it again, then those that the wave reaches."""
    again: dict[Unit, list[DeviceObservation]] = {}
    for device in due:
        again.setdefault(unit(device), []).append(device)
    return [*again.values(), *seen.taken_units]


def _reached(seen: Survey) -> Iterable[DeviceObservation]:
    return (d for c in seen.classes.values() if c.taken for d in c.fresh)


def _until(seen: Survey, device: DeviceObservation) -> str:
    group = seen.groups.get(device.group)
    return group.until if group is not None else ""


def _pace(policy: Policy, seen: Survey, now: float) -> tuple[int, float | None]:
    """How many the rate allows now, and when it allows the next."""
    if policy.rate is None:
        return seen.devices, None
    lately, leaves_s = given_lately(seen.given_at, now)
    return max(0, policy.rate.now(len(seen.given_at), seen.done) - lately), now + leaves_s


def _why(waits_for: Waiting, until: float | None) -> Decision:
    return Decision(actions=(), sentence="", gates=(), waits_for=waits_for, until=until)
