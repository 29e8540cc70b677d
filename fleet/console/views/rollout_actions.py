"""What may be done with a rollout, by whom, and what each does to how many devices. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from fleet.console.views.wording import plural
from fleet.resources import RolloutInfo
from fleet.roles import Role, person_of

_ENDED = frozenset({"halted", "aborted", "completed"})


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Something to do: `consequences` are lines; `typed` has to be typed first, if it is dangerous.

    `asks_reason` where it is refused without one.
    """

    verb: str
    label: str
    role: Role
    kind: str
    consequences: tuple[str, ...]
    typed: str = ""
    asks_reason: bool = False


class Actions(msgspec.Struct, frozen=True, kw_only=True):
    """What the visitor may do now, and why they may not do what others may."""

    actions: tuple[Action, ...]
    notes: tuple[str, ...]


def name_of(info: RolloutInfo) -> str:
    """`digits:1.2.0`; of a configuration its layer and revision."""
    return f"{info['model'].removeprefix(':')}:{info['version']}"


def actions_of(info: RolloutInfo, role: Role, person: str) -> Actions:
    """What a person of a role may do with a rollout as it stands."""
    status, notes = info["status"], []
    found = []
    for verb, (statuses, make) in _VERBS.items():
        action = make(info) if status in statuses else None
        if action is None:
            continue
        if not role.reaches(action.role):
            notes.append(f"{action.label}: that needs the role {action.role}; you are {role}.")
            continue
        is_own = person == person_of(info["created_by"])
        if verb == "approve" and is_own and role is not Role.ADMIN:
            notes.append("You made this rollout: somebody else has to approve it.")
            continue
        found.append(
            msgspec.structs.replace(
                action, asks_reason=action.asks_reason or (verb == "approve" and is_own)
            )
        )
    return Actions(actions=tuple(found), notes=tuple(notes))


def override_of(info: RolloutInfo, gate: Mapping[str, Any]) -> Action:
    """Let a gate pass that does not."""
    left = sum(device["outcome"] == "waiting" for device in info["devices"])
    return Action(
        verb="override",
        label="Override",
        role=Role.APPROVER,
        kind="danger",
        consequences=(
            (
                f"The gate {gate['name']} counts as passed in this wave, though it says "
                f"{gate['result']}: {str(gate.get('reason', '')).rstrip('.')}."
            ),
            f"{plural(left, 'device')} that {_wait(left)} may be given {name_of(info)} after that.",
            "Your reason stands beside the gate and in the audit log.",
        ),
        typed=name_of(info),
        asks_reason=True,
    )


def may_override(info: RolloutInfo, gate: Mapping[str, Any], role: Role) -> bool:
    """Whether a visitor is offered to let a gate pass."""
    is_open = info["status"] in {"running", "paused"}
    return is_open and gate["result"] != "pass" and role.reaches(Role.APPROVER)


def _start(info: RolloutInfo) -> Action:
    waiting = _count(info, "waiting")
    return Action(
        verb="start",
        label="Start",
        role=Role.OPERATOR,
        kind="primary",
        consequences=(
            f"It begins with {_wave(info)}.",
            f"Its waves reach {plural(waiting, 'device')} in all, as its gates hold.",
        ),
    )


def _approve(info: RolloutInfo) -> Action | None:
    if not info["policy"].get("approval") or info["waits_for"] != "approval":
        return None
    waiting = _count(info, "waiting")
    return Action(
        verb="approve",
        label="Approve",
        role=Role.APPROVER,
        kind="primary",
        consequences=(
            f"{_wave(info).capitalize()} of {name_of(info)} begins.",
            (
                f"{plural(waiting, 'device')} {_wait(waiting)} for it in this wave and those "
                "that follow."
            ),
        ),
    )


def _pause(info: RolloutInfo) -> Action:
    moving, waiting = _count(info, "updating"), _count(info, "waiting")
    return Action(
        verb="pause",
        label="Pause",
        role=Role.OPERATOR,
        kind="plain",
        consequences=(
            f"{plural(waiting, 'device')} that {_wait(waiting)} get nothing until it is resumed.",
            f"{plural(moving, 'device')} on the way {'finishes' if moving == 1 else 'finish'}.",
        ),
    )


def _resume(info: RolloutInfo) -> Action:
    return Action(
        verb="resume",
        label="Resume",
        role=Role.OPERATOR,
        kind="primary",
        consequences=(
            f"It goes on in {_wave(info)}.",
            f"{plural(_count(info, 'waiting'), 'device')} may be given {name_of(info)}.",
        ),
    )


def _abort(info: RolloutInfo) -> Action:
    reached = _reached(info)
    match info["policy"].get("on_failure", "rollback"):
        case "rollback":
            then = f"{plural(reached, 'device')} that it reached go back to what they ran before."
        case "rollback-failed":
            failed = _count(info, "failed")
            then = (
                f"{plural(failed, 'device')} that failed go back to what they ran before; "
                f"{plural(reached - failed, 'device')} keep it."
            )
        case _:
            then = f"{plural(reached, 'device')} that it reached stay as they are."
    waiting = _count(info, "waiting")
    return Action(
        verb="abort",
        label="Abort",
        role=Role.OPERATOR,
        kind="danger",
        consequences=(
            then,
            f"{plural(waiting, 'device')} that {_wait(waiting)} get nothing.",
            "It has ended then, and cannot be resumed.",
        ),
        typed=name_of(info),
    )


def _retry(info: RolloutInfo) -> Action | None:
    number = sum(_count(info, outcome) for outcome in ("failed", "refused", "restored"))
    if not number:
        return None
    return Action(
        verb="retry",
        label="Retry",
        role=Role.OPERATOR,
        kind="plain",
        consequences=(
            (
                f"{plural(number, 'device')} that failed, refused or went back "
                f"{'is' if number == 1 else 'are'} given {name_of(info)} again, at once."
            ),
            "The rollout goes on in its wave.",
        ),
    )


def _roll_back(info: RolloutInfo) -> Action | None:
    number = _count(info, "committed") + _count(info, "updating")
    if info["kind"] != "release" or not number:
        return None
    return Action(
        verb="rollback",
        label="Roll back",
        role=Role.OPERATOR,
        kind="danger",
        consequences=(
            (
                f"{plural(number, 'device')} that have {name_of(info)} are given the version that "
                "they ran before, or the one that you choose, all of them at once."
            ),
            "It is a rollout of its own, with a trial on each device.",
        ),
        typed=name_of(info),
    )


_Make = Callable[[RolloutInfo], Action | None]
_VERBS: dict[str, tuple[frozenset[str], _Make]] = {
    "start": (frozenset({"draft"}), _start),
    "approve": (frozenset({"draft", "running", "paused"}), _approve),
    "resume": (frozenset({"paused"}), _resume),
    "retry": (frozenset({"running", "paused", "halted", "completed"}), _retry),
    "pause": (frozenset({"running"}), _pause),
    "rollback": (_ENDED, _roll_back),
    "abort": (frozenset({"draft", "running", "paused"}), _abort),
}


def _count(info: RolloutInfo, outcome: str) -> int:
    return sum(device["outcome"] == outcome for device in info["devices"])


def _reached(info: RolloutInfo) -> int:
    """The devices that have the release by this rollout, or were to have it."""
    return sum(
        device["wave"] is not None and device["outcome"] != "restored" for device in info["devices"]
    )


def _wait(number: int) -> str:
    return "waits" if number == 1 else "wait"


def _wave(info: RolloutInfo) -> str:
    waves: Sequence[Mapping[str, Any]] = info["policy"].get("waves", ())
    number = min(info["wave"], len(waves)) or 1
    wave = waves[number - 1] if waves else {}
    if wave.get("count") is not None:
        size = plural(wave["count"], "device")
    else:
        size = f"{wave.get('percent') or 100:g} %"
    return f"wave {number} of {len(waves)} ({size})"
