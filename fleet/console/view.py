"""What the overview shows, as values: read in one go, compared to see whether to draw again."""

from dataclasses import dataclass
from typing import Any

from fleet.services import audit, devices, health, rollouts
from fleet.services.context import Services

SHOWN_ROLLOUTS = 6
SHOWN_EVENTS = 15
TONES = {
    "committed": "good",
    "completed": "good",
    "running": "busy",
    "pass": "good",
    "fail": "bad",
    "undecided": "busy",
    "halted": "bad",
    "aborted": "bad",
    "rolled_back": "bad",
    "refused": "warn",
    "paused": "warn",
}


@dataclass(frozen=True)
class DeviceCell:
    """One device in the list of all, or in a rollout."""

    name: str
    tone: str
    text: str


@dataclass(frozen=True)
class GateLine:
    """One gate with its numbers."""

    name: str
    result: str
    value: str
    bound: str
    reason: str


@dataclass(frozen=True)
class RolloutCard:
    """One rollout: where it stands and the sentence that says why."""

    id: str
    title: str
    status: str
    sentence: str
    waves: tuple[str, ...]
    wave: int
    cells: tuple[DeviceCell, ...]
    gates: tuple[GateLine, ...]


@dataclass(frozen=True)
class DeviceRow:
    """One device of the fleet."""

    name: str
    online: bool
    labels: str
    hardware_class: str
    running: str
    phase: str


@dataclass(frozen=True)
class Event:
    """One entry of the audit log."""

    seq: int
    at: float
    text: str


@dataclass(frozen=True)
class Overview:
    """Everything on the page."""

    online: int
    devices: tuple[DeviceRow, ...]
    rollouts: tuple[RolloutCard, ...]
    events: tuple[Event, ...]
    frozen: str


def tone(state: str) -> str:
    """How a state is coloured: `good`, `bad`, `warn`, `busy` or `idle`."""
    return TONES.get(state, "busy" if state else "idle")


def read(services: Services) -> Overview:
    """Read the overview from the database."""
    state = health.show(services)
    rows = devices.list_devices(services)["items"]
    found = rollouts.list_rollouts(services, limit=SHOWN_ROLLOUTS)
    return Overview(
        online=state["online"],
        devices=tuple(_device(row) for row in rows),
        rollouts=tuple(_card(services, row) for row in found),
        events=tuple(
            Event(seq=entry["seq"], at=entry["at"], text=_sentence(entry))
            for entry in audit.entries(services, limit=SHOWN_EVENTS)["items"]
        ),
        frozen=state["frozen"],
    )


def _device(row: Any) -> DeviceRow:
    models = (row["reported"] or {}).get("models", {})
    running = ", ".join(
        f"{name}:{model['running_version']}"
        for name, model in models.items()
        if model.get("running_version")
    )
    phases = ", ".join(str(model["phase"]) for model in models.values())
    labels = ", ".join(f"{key}={value}" for key, value in sorted(row["labels"].items()))
    return DeviceRow(
        name=row["device"],
        online=row["online"],
        labels=labels,
        hardware_class=row["hardware_class"],
        running=running,
        phase=phases,
    )


def _card(services: Services, row: Any) -> RolloutCard:
    explained = rollouts.explain(services, row["id"])
    return RolloutCard(
        id=row["id"],
        title=f"{row['model']}:{row['version']}",
        status=row["status"],
        sentence=row["sentence"],
        waves=tuple(_wave(wave) for wave in row["policy"].get("waves", [])),
        wave=row["wave"],
        cells=tuple(
            DeviceCell(
                name=device["device"],
                tone=tone(str(device["phase"] or "")),
                text=": ".join(filter(None, (str(device["phase"] or "waits"), device["reason"]))),
            )
            for device in row["devices"]
        ),
        gates=tuple(_gate(gate) for gate in explained["gates"]),
    )


def _wave(wave: dict[str, Any]) -> str:
    if wave.get("count") is not None:
        return f"{wave['count']} device" + ("s" if wave["count"] > 1 else "")
    return f"{wave.get('percent', 100):g} %"


def _gate(gate: dict[str, Any]) -> GateLine:
    value = _number(gate.get("value"))
    if gate.get("low") is not None and gate.get("high") is not None:
        value += f"  ({_number(gate['low'])} to {_number(gate['high'])})"
    return GateLine(
        name=gate["name"],
        result=gate["result"],
        value=f"{value} {gate.get('unit', '')}".strip(),
        bound=_number(gate.get("bound")),
        reason=gate.get("reason", ""),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _sentence(entry: Any) -> str:
    why = f": {entry['reason']}" if entry["reason"] else ""
    return f"{entry['actor']} {entry['action']} {entry['subject']}{why}"
