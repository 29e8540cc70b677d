"""What a rollout shows, as values: where it stands, why, its waves, devices and gates. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fleet.console.views.gate_plot import Plot, plot_of, wants_at_least
from fleet.console.views.wording import clock, number, plural, tone
from fleet.resources import Explanation, RolloutInfo

_LABELS = {
    "devices.failed": "Failed devices",
    "devices.committed": "Committed devices",
    "committed": "Committed with evidence",
    "golden.outputs": "Golden outputs, largest difference",
    "golden.labels": "Golden labels missed",
    "live.confident_share": "Confident share",
    "live.error_rate": "Error rate",
    "live.stuck": "Inference that does not end",
    "live.latency_p95": "Latency p95 on the device",
    "latency_p95_ratio": "Latency p95 against the release before",
    "latency_p95_ms": "Latency p95",
    "error_rate": "Error rate",
    "memory_mb": "Memory",
    "temperature_c": "Temperature",
    "crash_rate": "Devices on which it crashed",
}
_STOPS = {"halted": "stopped", "aborted": "aborted", "paused": "paused"}


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A device in a rollout; `tone` colours it, `text` says the same in words."""

    name: str
    tone: str
    text: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A wave; `state` is `done`, `now`, `paused`, `aborted`, `stopped` or `next`."""

    label: str
    state: str


class GateLine(msgspec.Struct, frozen=True, kw_only=True):
    """A gate with its numbers."""

    name: str
    label: str
    result: str
    tone: str
    numbers: str
    reason: str
    needed: str  # what would decide it
    plot: Plot | None


class GateGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The gates of one hardware class, or of the whole wave."""

    title: str
    gates: tuple[GateLine, ...]


class RolloutCard(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout: where it stands, and the sentence that says why."""

    id: str
    title: str
    status: str
    tone: str
    sentence: str
    about: str
    is_open: bool
    steps: tuple[Step, ...]
    cells: tuple[Cell, ...]
    counts: tuple[tuple[str, str, int], ...]  # outcome, tone, number
    groups: tuple[GateGroup, ...]


def card(info: RolloutInfo, why: Explanation, *, is_latest: bool) -> RolloutCard:
    """The card of a rollout; the latest one is open."""
    counts = Counter(device["outcome"] for device in info["devices"])
    return RolloutCard(
        id=info["id"],
        title=f"{info['model']}:{info['version']}",
        status=info["status"],
        tone=tone(info["status"]),
        sentence=why["sentence"],
        about=f"{info['id']}, begun {clock(info['created_at'])} by {info['created_by']}",
        is_open=is_latest or info["status"] in {"running", "paused"},
        steps=steps_of(info),
        cells=tuple(
            Cell(
                name=device["device"],
                tone=tone(device["outcome"]),
                text=": ".join(filter(None, (_state(device), device["reason"]))),
            )
            for device in info["devices"]
        ),
        counts=tuple((name, tone(name), count) for name, count in sorted(counts.items())),
        groups=_groups(why["gates"]),
    )


def _state(device: Mapping[str, Any]) -> str:
    outcome, phase = str(device["outcome"]), str(device["phase"]).replace("_", " ")
    if outcome == "restored" and not device["running_version"]:
        return "restored, runs nothing, as before"
    return f"{outcome}, {phase}" if phase and phase != outcome else outcome


def steps_of(info: RolloutInfo) -> tuple[Step, ...]:
    """The waves of a rollout, and where it stands among them."""
    status, now = info["status"], info["wave"] - 1
    steps = []
    for index, wave in enumerate(info["policy"].get("waves", ())):
        if status == "completed" or index < now:
            state = "done"
        elif index == now:
            state = _STOPS.get(status, "now")
        else:
            state = "next"
        steps.append(Step(label=_wave(wave), state=state))
    return tuple(steps)


def _wave(wave: Mapping[str, Any]) -> str:
    if wave.get("count") is not None:
        return plural(wave["count"], "device")
    return f"{wave.get('percent') or 100:g} %"


def gate_line(gate: Mapping[str, Any]) -> GateLine:
    """A gate by itself, with the hardware class that it is of."""
    title, _, name = gate["name"].rpartition(": ")
    line = _gate(gate, name)
    return msgspec.structs.replace(line, label=f"{line.label}, {title}") if title else line


def _groups(gates: Sequence[Mapping[str, Any]]) -> tuple[GateGroup, ...]:
    groups: dict[str, list[GateLine]] = {}
    for gate in gates:
        title, _, name = gate["name"].rpartition(": ")
        groups.setdefault(title or "The whole wave", []).append(_gate(gate, name))
    return tuple(GateGroup(title=title, gates=tuple(lines)) for title, lines in groups.items())


def _gate(gate: Mapping[str, Any], name: str) -> GateLine:
    value, bound, unit = gate.get("value"), gate.get("bound"), gate.get("unit") or ""
    unit = "" if unit == "devices" else unit  # the label says what is counted
    numbers = ""
    if value is not None:
        numbers = number(value, unit if bound is None else "")
    if value is not None and bound is not None:
        limit = "at least" if wants_at_least(name) else "at most"
        numbers += f", {limit} {number(bound, unit)}"
    return GateLine(
        name=gate["name"],
        label=_LABELS.get(name, name),
        result=gate["result"],
        tone=tone(gate["result"]),
        numbers=numbers,
        reason=gate.get("reason", ""),
        needed=_needed(gate),
        plot=plot_of(gate),
    )


def _needed(gate: Mapping[str, Any]) -> str:
    if gate["result"] != "undecided" or gate.get("n_needed") is None:
        return ""
    return f" (it has {gate.get('n') or 0:,}, and {gate['n_needed']:,} would decide it)"
