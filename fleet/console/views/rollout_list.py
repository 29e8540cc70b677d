"""The list of rollouts, and what happened to one of them. Pure."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fleet.console.views.rollout import GateLine, gate_line
from fleet.console.views.rollout_actions import name_of
from fleet.console.views.wording import clock, plural, tone
from fleet.resources import AuditInfo, RolloutInfo

_TONES = {"halt": "bad", "abort": "warn", "pause": "warn", "override": "warn", "complete": "good"}
_WORDS = {
    "create": "created",
    "start": "started",
    "approve": "approved",
    "pause": "paused",
    "resume": "resumed",
    "abort": "aborted",
    "retry": "tried again",
    "override": "a gate overridden",
    "advance": "the next wave begins",
    "hold": "gates hold, the soak begins",
    "halt": "halted",
    "complete": "completed",
    "rollback": "rolled back",
}


class RolloutLine(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout of the list."""

    id: str
    name: str
    status: str
    tone: str
    sentence: str
    gate: GateLine | None  # the one that tells most
    wave: str
    counts: tuple[tuple[str, str, int], ...]  # outcome, tone, number
    about: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done with a rollout."""

    at: str
    who: str
    what: str
    why: str
    tone: str


def rollout_line(info: RolloutInfo) -> RolloutLine:
    """A rollout of the list."""
    return RolloutLine(
        id=info["id"],
        name=name_of(info),
        status=info["status"],
        tone=tone(info["status"]),
        sentence=info["sentence"],
        gate=gate_line(info["gate"]) if info["gate"] else None,
        wave=f"wave {min(info['wave'], info['waves'])} of {info['waves']}",
        counts=tuple((name, tone(name), number) for name, number in info["counts"].items()),
        about=f"{info['id']}, {clock(info['created_at'])} by {info['created_by']}",
    )


def timeline(entries: Sequence[AuditInfo]) -> tuple[Event, ...]:
    """What was done with a rollout, newest first."""
    return tuple(_event(entry) for entry in entries)


def _event(entry: AuditInfo) -> Event:
    verb = entry["action"].rpartition(".")[2]
    return Event(
        at=dt.datetime.fromtimestamp(entry["at"], dt.UTC).strftime("%d %b %H:%M:%S"),
        who=entry["actor"],
        what=_WORDS.get(verb, verb) + _more(verb, entry["detail"]),
        why=entry["reason"],
        tone=_TONES.get(verb, "idle"),
    )


def _more(verb: str, detail: Mapping[str, Any]) -> str:
    if verb == "override":
        return f": {detail.get('gate', '')}"
    if verb == "retry" and detail.get("devices"):
        return f": {plural(len(detail['devices']), 'device')}"
    return ""
