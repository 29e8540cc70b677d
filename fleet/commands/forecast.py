"""What a rollout would meet before it begins: its waves, other rollouts, a selector for nobody."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

import msgspec

from edgeml.errors import UserError
from fleet.resources import DeviceInfo, Plan, RolloutInfo
from fleet.rollouts import DeviceObservation, Policy, RolloutState, RolloutStatus
from fleet.rollouts.decide import wave_devices
from fleet.rollouts.gates import count
from fleet.rollouts.selector import Requirement, parse_selector

_OPEN = {str(RolloutStatus.RUNNING), str(RolloutStatus.PAUSED)}
_MAX_LABELS = 5
_MAX_NAMED = 5
_ALIKE = 0.6


def waves(policy: Policy, plan: Plan, taken: Collection[str]) -> list[list[str]]:
    """The devices that each wave would add, as the engine takes them.

    Args:
        policy: the rollout's policy.
        plan: what each device would get.
        taken: devices that other rollouts of the model have.
    """
    devices = [
        DeviceObservation(
            device=planned["device"],
            hardware_class=planned["hardware_class"],
            variant=planned["variant"] or "",
            busy=planned["device"] in taken,
        )
        for planned in plan["devices"]
    ]
    found = []
    for number in range(len(policy.waves)):
        state = RolloutState(
            id="",
            model=plan["model"],
            release=plan["release"],
            release_version=plan["version"],
            wave=number,
        )
        fresh = {d.device for d in wave_devices(policy, state, devices) if d.assigned_at is None}
        devices = [
            msgspec.structs.replace(d, assigned_at=float(number)) if d.device in fresh else d
            for d in devices
        ]
        found.append(sorted(fresh))
    return found


def taken_by(rollouts: Iterable[RolloutInfo]) -> dict[str, str]:
    """The devices that rollouts under way have not let go, and which one has each."""
    return {
        place["device"]: rollout["id"]
        for rollout in rollouts
        if rollout["status"] in _OPEN
        for place in rollout["devices"]
        if place["assigned_at"] is not None and place["outcome"] != "restored"
    }


def shared(plan: Plan, rollouts: Iterable[RolloutInfo]) -> list[str]:
    """How this rollout would share devices with those of the same model that are under way."""
    chosen = {planned["device"] for planned in plan["devices"]}
    said = []
    for other in rollouts:
        common = {d["device"] for d in other["devices"]} & chosen
        if other["status"] not in _OPEN or not common:
            continue
        has = sorted(common & set(taken_by([other])))
        text = (
            f"{other['id']} is {other['status']} and chooses {count(len(common))} of these, too. "
            "A device belongs to the rollout that gives it its release first, until that has ended."
        )
        if has:
            text += f" It has {named(has)} now."
        said.append(f"{text} If it is out of date: edgeml rollout abort {other['id']}")
    return said


def nobody(selector: str, devices: Sequence[DeviceInfo]) -> UserError:
    """What to say of a selector that chooses no device."""
    if not devices:
        return UserError(
            "The rollout would reach nobody.",
            why="There is no device yet.",
            fix="Enrol one with `edgeml fleet enroll NAME`, or create it with --allow-empty.",
        )
    number = "The only device does not match" if len(devices) == 1 else (
        f"None of the {len(devices)} devices matches"
    )  # fmt: skip
    return UserError(
        "The rollout would reach nobody.",
        why=f"{number} the selector {selector!r}.",
        fix=f"{_nearest(selector, devices)} Correct the selector, or create it with --allow-empty.",
    )


def named(names: Sequence[str]) -> str:
    """`cam-1, cam-2 and 8 more`."""
    shown = ", ".join(names[:_MAX_NAMED])
    left = len(names) - _MAX_NAMED
    return f"{shown} and {left} more" if left > 0 else shown


def _nearest(selector: str, devices: Sequence[DeviceInfo]) -> str:
    """The labels in the fleet that look most like what the selector asks for."""
    labels = Counter(
        f"{key}={value}" for device in devices for key, value in device["labels"].items()
    )
    if not labels:
        return "No device has a label; give them with `edgeml fleet enroll NAME --label`."
    found: dict[str, None] = {}
    for requirement in parse_selector(selector).requirements:
        for wanted in _texts(requirement):
            found |= dict.fromkeys(get_close_matches(wanted, labels, _MAX_LABELS, _ALIKE))
        same_key = [label for label in labels if label.partition("=")[0] == requirement.key]
        found |= dict.fromkeys(same_key)
    near = list(found)[:_MAX_LABELS]
    what = "Nearest labels" if near else "Labels in the fleet"
    chosen = near or [label for label, _ in labels.most_common(_MAX_LABELS)]
    return f"{what}: {', '.join(f'{label} ({count(labels[label])})' for label in chosen)}."


def _texts(requirement: Requirement) -> list[str]:
    return [f"{requirement.key}={value}" for value in requirement.values] or [requirement.key]
