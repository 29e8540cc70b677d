"""What the overview shows, as values: made of what was read, and compared to see what is new.

Pure: `overview` takes the fleet's resources and returns everything on the page, worded.
"""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cloud_sync.messages import SecurityKind
from fleet.console.plot import Plot, plot_of, wants_at_least
from fleet.resources import AuditInfo, DeviceInfo, Explanation, Health, ReleaseInfo, RolloutInfo
from fleet.show import refusal

MAX_DEVICES = 12
MAX_RELEASES = 6
_TONES = {
    "committed": "good",
    "completed": "good",
    "pass": "good",
    "running": "busy",
    "updating": "busy",
    "undecided": "busy",
    "fail": "bad",
    "failed": "bad",
    "halted": "bad",
    "rolled_back": "bad",
    "aborted": "warn",
    "refused": "warn",
    "paused": "warn",
    "restored": "warn",
    "unfit": "warn",
}
_LABELS = {
    "devices.failed": "Failed devices",
    "committed": "Committed with evidence",
    "golden.outputs": "Golden outputs, largest difference",
    "golden.labels": "Golden labels missed",
    "live.confident_share": "Confident share",
    "live.error_rate": "Error rate",
    "live.stuck": "Inference that does not end",
    "live.latency_p95": "Latency p95 on the device",
    "latency_p95_ratio": "Latency p95 against the release before",
}
_STOPS = {"halted": "stopped", "aborted": "aborted", "paused": "paused"}
_AT_REST = {"", "idle", "committed"}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something about the fleet itself that an operator has to know."""

    tone: str
    text: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet at one glance."""

    devices: str
    tone: str
    facts: tuple[str, ...]
    notices: tuple[Notice, ...]


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


class DeviceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A device of the fleet."""

    name: str
    online: bool
    runs: str
    update: str
    trouble: str  # why it does not run the configuration that is wanted of it
    tone: str
    labels: str
    hardware_class: str
    seen: str


class ReleaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """A release, and how many devices run it."""

    name: str
    about: str
    running: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened."""

    seq: int
    time: str
    day: str
    who: str
    what: str
    why: str
    tone: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on the page.

    `more_devices` are not shown; `unread_devices` of them were not even looked at, and have no
    part in the order of those that are, nor in what releases run.
    """

    summary: Summary
    rollouts: tuple[RolloutCard, ...]
    devices: tuple[DeviceRow, ...]
    more_devices: int
    unread_devices: int
    releases: tuple[ReleaseRow, ...]
    events: tuple[Event, ...]


def overview(
    *,
    health: Health,
    devices: Sequence[DeviceInfo],
    rollouts: Sequence[tuple[RolloutInfo, Explanation]],
    releases: Sequence[ReleaseInfo],
    events: Sequence[AuditInfo],
    now: float,
) -> Overview:
    """The page of a fleet."""
    rows = sorted((_device(d, now) for d in devices), key=lambda r: (_rank(r), r.name))
    return Overview(
        summary=_summary(health, rollouts, releases),
        rollouts=tuple(
            _card(info, why, is_latest=number == 0) for number, (info, why) in enumerate(rollouts)
        ),
        devices=tuple(rows[:MAX_DEVICES]),
        more_devices=max(0, health["devices"] - len(rows[:MAX_DEVICES])),
        unread_devices=max(0, health["devices"] - len(devices)),
        releases=tuple(_release(r, devices) for r in releases[:MAX_RELEASES]),
        events=tuple(_event(e, now) for e in events),
    )


def tone(state: str) -> str:
    """How a state is coloured: `good`, `bad`, `warn`, `busy` or `idle`."""
    return _TONES.get(state, "busy" if state and state not in {"waiting", "idle"} else "idle")


def number(value: float, unit: str = "") -> str:
    """A figure with the digits that say something, and its unit."""
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"  # noqa: PLR2004
    return f"{text} {unit}".rstrip()


def size(count: int) -> str:
    """Bytes for people, in powers of 1000: `412 kB`."""
    value, units = float(count), iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    while value >= 1000 and (larger := next(units, None)):  # noqa: PLR2004
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def plural(count: int, word: str) -> str:
    """`1 device`, `3 devices`."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def _summary(
    health: Health,
    rollouts: Sequence[tuple[RolloutInfo, Explanation]],
    releases: Sequence[ReleaseInfo],
) -> Summary:
    total, online = health["devices"], health["online"]
    moving = [f"{i['model']}:{i['version']}" for i, _ in rollouts if i["status"] == "running"]
    paused = sum(i["status"] == "paused" for i, _ in rollouts)
    motion = f"In motion: {', '.join(moving)}" if moving else "No rollout in motion"
    notices = []
    if health["frozen"]:
        text = f"Rollouts are frozen: {health['frozen'].rstrip('.')}."
        notices.append(Notice(tone="bad", text=text))
    if not health["broker_connected"]:
        text = "The MQTT broker does not answer; devices are reached over HTTPS only, and slower."
        notices.append(Notice(tone="warn", text=text))
    untrusted = health["counters"].get(f"security.{SecurityKind.UNTRUSTED_RELEASE}", 0)
    if untrusted:
        text = f"Devices refused to trust a release, {plural(untrusted, 'time')}. See it:"
        notices.append(Notice(tone="bad", text=f"{text} edgeml fleet security"))
    return Summary(
        devices=f"{online:,} of {total:,} devices are online" if total else "No device yet",
        tone="idle" if not total else "good" if online == total else "warn",
        facts=(
            f"{motion}, {paused:,} paused" if paused else motion,
            plural(len(releases), "release"),
            f"edgeml {health['version']}",
        ),
        notices=tuple(notices),
    )


def _rank(row: DeviceRow) -> int:
    """Devices that want attention come first."""
    return {"bad": 0, "warn": 1, "busy": 2}.get(row.tone, 3)


def _device(info: DeviceInfo, now: float) -> DeviceRow:
    models: Mapping[str, Mapping[str, Any]] = (info["reported"] or {}).get("models", {})
    phases = {name: str(model.get("phase", "")) for name, model in models.items()}
    moving = [f"{name}: {phase.replace('_', ' ')}" for name, phase in sorted(phases.items())
              if phase not in _AT_REST]  # fmt: skip
    worst = [tone(phase) for phase in phases.values() if phase not in _AT_REST]
    runs = [
        f"{name}:{model['running_version']}"
        for name, model in sorted(models.items())
        if model.get("running_version")
    ]
    seen, online = info["last_seen"], info["online"]
    refused = refusal(info)
    wanted = info["configuration"].get("config_version", 0)
    tones = [*worst, *([] if online and not refused else ["warn"])]
    return DeviceRow(
        name=info["device"],
        online=online,
        runs=", ".join(runs) or "runs nothing",
        update=", ".join(moving),
        trouble=f"configuration {wanted} refused, {refused}" if refused else "",
        tone=min(tones, key=("bad", "warn", "busy", "good", "idle").index, default="good"),
        labels=", ".join(f"{key}={value}" for key, value in sorted(info["labels"].items())),
        hardware_class=info["hardware_class"] or "unknown hardware",
        seen="" if online else f"last seen {_ago(now - seen)} ago" if seen else "never seen",
    )


def _ago(seconds: float) -> str:
    """`5 min`: coarse, so that a page does not change every second."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "a moment"


def _release(info: ReleaseInfo, devices: Sequence[DeviceInfo]) -> ReleaseRow:
    running = sum(
        (d["reported"] or {}).get("models", {}).get(info["model"], {}).get("running_release")
        == info["digest"]
        for d in devices
    )
    about = f"{plural(len(info['variants']), 'variant')}, {size(info['bytes'])}"
    return ReleaseRow(name=f"{info['model']}:{info['version']}", about=about, running=running)


def _card(info: RolloutInfo, why: Explanation, *, is_latest: bool) -> RolloutCard:
    counts = Counter(device["outcome"] for device in info["devices"])
    return RolloutCard(
        id=info["id"],
        title=f"{info['model']}:{info['version']}",
        status=info["status"],
        tone=tone(info["status"]),
        sentence=why["sentence"],
        about=f"{info['id']}, begun {_clock(info['created_at'])} by {info['created_by']}",
        is_open=is_latest or info["status"] in {"running", "paused"},
        steps=_steps(info),
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


def _steps(info: RolloutInfo) -> tuple[Step, ...]:
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
        plot=plot_of(gate),
    )


def _event(entry: AuditInfo, now: float) -> Event:
    at = dt.datetime.fromtimestamp(entry["at"], dt.UTC)
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    verb = entry["action"].rpartition(".")[2]
    tones = {"halt": "bad", "abort": "warn", "pause": "warn", "complete": "good"}
    return Event(
        seq=entry["seq"],
        time=at.strftime("%H:%M:%S"),
        day="" if at.date() == today else at.strftime("%d %b"),
        who=entry["actor"],
        what=f"{entry['action']} {entry['subject']}",
        why=entry["reason"],
        tone=tones.get(verb, "idle"),
    )


def _clock(unix: float) -> str:
    return dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%d %b %H:%M UTC")
