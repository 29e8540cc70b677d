"""What the API gives of configurations: where each value comes from, layers, changes."""

from typing import Any

# pydantic wants this one before Python 3.12
from typing_extensions import TypedDict


class SettingInfo(TypedDict):
    """One setting of a device; `origin` is the layer and its revision, or `default`."""

    key: str
    value: Any
    origin: str


class SettingConflict(TypedDict):
    """A setting about which layers of one priority disagree: none of them counts."""

    key: str
    layers: list[str]


class ConfigurationInfo(TypedDict):
    """A device's configuration as its layers make it, and what the device says of it.

    `status` is `committed`, `pending` (the device has not said that it follows it) or `refused`,
    with its reason in `error`. `problem` says why the layers make none; then the device keeps the
    configuration that it has.
    """

    device: str
    settings: list[SettingInfo]
    conflicts: list[SettingConflict]
    problem: str
    version: int
    reported_version: int
    status: str
    error: str
    configuration: dict[str, Any]


class RevisionInfo(TypedDict):
    """What a layer said at one time, and the rollout that brought it (null for none)."""

    number: int
    revision: str
    settings: dict[str, Any]
    created_at: float
    created_by: str
    rollout: str | None


class LayerInfo(TypedDict):
    """A layer: whom it is for, what holds (`number` 0: nothing yet), and its history."""

    layer: str
    kind: str
    selector: str
    priority: int
    number: int
    settings: dict[str, Any]
    revisions: list[RevisionInfo]


class SettingChange(TypedDict):
    """A setting before and after; null where nobody sets it."""

    key: str
    before: Any
    after: Any


class ChangedDevice(TypedDict):
    """What a change does to a device, or why it does nothing or cannot be."""

    device: str
    hardware_class: str
    changes: list[SettingChange]
    reason: str
    fits: bool


class ConfigurationPlan(TypedDict):
    """What a change of a layer would do; `counts` has `changed`, `same` and `unfit`."""

    layer: str
    selector: str
    priority: int
    devices: list[ChangedDevice]
    next: str | None
    counts: dict[str, int]
    by_class: dict[str, dict[str, int]]


class ConfigurationChange(TypedDict):
    """A change of a layer; `rollout` is null where no device is changed, and it holds at once."""

    layer: str
    number: int
    revision: str
    rollout: str | None
    changed: int
