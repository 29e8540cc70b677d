"""The list of devices: a row for each, and what is being looked for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from edgeml.errors import UserError
from fleet.console import paths
from fleet.console.views.wording import ago, plural, tone
from fleet.resources import DeviceInfo
from fleet.rollouts.selector import check_labels
from fleet.services.device_search import Wanted

AT_REST = frozenset({"committed", "idle", ""})
FILTERS = {
    "selector": "selector",
    "name": "name",
    "state": "state",
    "hardware": "hardware_class",
    "model": "model",
    "version": "version",
    "phase": "phase",
}
"""Names in the address, and the fields of `Wanted` that they fill."""


class DeviceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A device in the list; `address` is that of its page."""

    id: str
    address: str
    state: str
    tone: str
    hardware: str
    runs: str
    phase: str
    phase_tone: str
    seen: str
    labels: str


def row(info: DeviceInfo, now: float) -> DeviceRow:
    """A device as the list shows it."""
    models = models_of(info)
    moving = [
        f"{name}: {phase_words(model)}"
        for name, model in sorted(models.items())
        if model.get("phase", "") not in AT_REST
    ]
    tones = [tone(str(m.get("phase", ""))) for m in models.values()]
    state, state_tone = state_of(info)
    return DeviceRow(
        id=info["device"],
        address=paths.device(info["device"]),
        state=state,
        tone=state_tone,
        hardware=info["hardware_class"] or "unknown",
        runs=runs(info) or "nothing yet",
        phase=", ".join(moving) or ("committed" if runs(info) else "idle"),
        phase_tone=min(tones, key=("bad", "warn", "busy", "good", "idle").index, default="idle"),
        seen=seen(info, now),
        labels=labels_text(info["labels"]),
    )


def state_of(info: DeviceInfo) -> tuple[str, str]:
    """Whether a device is there, in a word, and its tone."""
    if info["revoked_at"] is not None:
        return "revoked", "bad"
    if info["last_seen"] is None:
        return "never seen", "warn"
    return ("online", "good") if info["online"] else ("offline", "warn")


def models_of(info: DeviceInfo) -> Mapping[str, Mapping[str, Any]]:
    """What a device says of its models, by their names."""
    found: Mapping[str, Mapping[str, Any]] = (info["reported"] or {}).get("models", {})
    return found


def runs(info: DeviceInfo) -> str:
    """`digits:1.2.0, faces:2.0.0`: what a device runs; empty for nothing."""
    return ", ".join(
        f"{name}:{model['running_version']}"
        for name, model in sorted(models_of(info).items())
        if model.get("running_version")
    )


def seen(info: DeviceInfo, now: float) -> str:
    """When a device was last heard of."""
    if info["last_seen"] is None:
        return "never"
    return f"{ago(max(0.0, now - info['last_seen']))} ago"


def labels_text(labels: Mapping[str, str]) -> str:
    """`line=3, site=north`."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def phase_words(model: Mapping[str, Any]) -> str:
    """`1.2.0 rolled back`: where an update stands."""
    phase = str(model.get("phase", "")).replace("_", " ")
    return f"{model.get('release_version', '')} {phase}".strip()


def wanted_of(query: Mapping[str, str]) -> Wanted:
    """What an address asks for; what it does not know of is left out."""
    return Wanted(**{field: query.get(name, "").strip() for name, field in FILTERS.items()})


def query_of(wanted: Wanted) -> dict[str, str]:
    """The address's words for what is looked for."""
    return {name: getattr(wanted, field) for name, field in FILTERS.items()}


def count_text(found: int, total: int) -> str:
    """`12 of 10,000 devices`."""
    return plural(total, "device") if found == total else f"{found:,} of {plural(total, 'device')}"


@dataclass(frozen=True)
class LabelChange:
    """Labels to set on many devices, and keys to take away."""

    put: Mapping[str, str]
    drop: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What it does, in words."""
        said = [f"set {labels_text(self.put)}"] if self.put else []
        if self.drop:
            said.append(f"take away {', '.join(self.drop)}")
        return " and ".join(said)


def parse_labels(text: str) -> LabelChange:
    """Read labels as they are written: `site=north, line=3, old-`.

    >>> parse_labels("site=north, old-").sentence
    'set site=north and take away old'

    Raises:
        UserError: a word is neither, or a label is not allowed.
    """
    put: dict[str, str] = {}
    drop: list[str] = []
    for word in text.replace(",", " ").split():
        key, equals, value = word.partition("=")
        if equals and key:
            put[key] = value
        elif word.endswith("-") and len(word) > 1:
            drop.append(word[:-1])
        else:
            raise UserError(
                f"{word[:60]!r} is no change of labels.",
                fix="Write key=value to set a label, key- to take it away.",
            )
    if not put and not drop:
        raise UserError("No label is changed.", fix="Write key=value, or key- to take one away.")
    check_labels(put)
    if both := sorted(set(put) & set(drop)):
        raise UserError(f"{both[0]!r} is to be set and taken away.", fix="Write one of them.")
    return LabelChange(put, tuple(drop))
