"""Layers of settings and the configuration that they make for one device. Pure.

The narrower layer wins, setting by setting: the fleet's, then those of labels by rising priority,
then the device's own. A setting is the smallest thing that has a meaning of its own: one field of
one source, one parameter of a model's site or of what is captured of it, one bound of the data
budget. Of two layers of the same priority that say different things neither counts, and the
conflict is told.

    >>> fleet = Layer(name="fleet", kind=Kind.FLEET, settings={"telemetry_every_s": 60})
    >>> north = Layer(name="north", kind=Kind.LABEL, priority=5, settings={"telemetry_every_s": 5})
    >>> merge([north, fleet]).settings[("telemetry_every_s",)].layer
    'north@1'
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import groupby
from typing import Any

import msgspec

from fleet.rollouts.selector import parse_selector
from fleet.settings import ABSENT

Key = tuple[str, ...]
_BY_MODEL = ("site", "capture")
_ORDER = ("fleet", "label", "device")


class Kind(StrEnum):
    """Whom a layer is for, broadest first."""

    FLEET = "fleet"
    LABEL = "label"
    DEVICE = "device"


class Layer(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a layer says, in its revision `number`."""

    name: str
    kind: Kind
    settings: dict[str, Any]
    selector: str = ""
    priority: int = 0
    number: int = 1

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def rank(self) -> tuple[int, int]:
        """Its place: a higher one wins."""
        return _ORDER.index(self.kind), self.priority

    def chooses(self, labels: Mapping[str, str]) -> bool:
        """Whether a device with these labels has it; a device's own is its device's anyway."""
        return parse_selector(self.selector).matches(labels)


class Setting(msgspec.Struct, frozen=True):
    """A value, and the layer that it comes from."""

    value: Any
    layer: str


class Merged(msgspec.Struct, frozen=True):
    """What layers make together; `conflicts` names the layers that disagree about a setting."""

    settings: dict[Key, Setting]
    conflicts: dict[Key, tuple[str, ...]]

    def configuration(self) -> dict[str, Any]:
        """The settings in the form in which they are written."""
        return unflatten({key: setting.value for key, setting in self.settings.items()})


def merge(layers: Iterable[Layer]) -> Merged:
    """What the layers of one device make together, in any order."""
    found: dict[Key, Setting] = {}
    conflicts: dict[Key, tuple[str, ...]] = {}
    ordered = sorted(layers, key=lambda layer: (layer.rank, layer.name))
    for _, equals in groupby(ordered, key=lambda layer: layer.rank):
        said: dict[Key, list[Setting]] = {}
        for layer in equals:
            for key, value in flatten(layer.settings).items():
                said.setdefault(key, []).append(Setting(value, str(layer)))
        for key, settings in said.items():
            if all(setting.value == settings[0].value for setting in settings):
                found[key] = settings[0]
                conflicts.pop(key, None)
            else:
                conflicts[key] = tuple(setting.layer for setting in settings)
    return Merged(found, conflicts)


def flatten(settings: Mapping[str, Any]) -> dict[Key, Any]:
    """Each setting by itself.

    >>> flatten({"sources": [{"name": "belt", "fps": 5}], "mirrors": []})
    {('sources', 'belt', 'fps'): 5, ('mirrors',): []}
    """
    found: dict[Key, Any] = {}
    for key, value in settings.items():
        if key == "sources":
            for source in value:
                found |= {(key, source["name"], f): v for f, v in source.items() if f != "name"}
        elif key in _BY_MODEL:
            found |= {(key, model, n): v for model, own in value.items() for n, v in own.items()}
        elif key == "data_budget":
            found |= {(key, name): v for name, v in value.items()}
        else:
            found[(key,)] = value
    return found


def unflatten(settings: Mapping[Key, Any], *, partial: bool = False) -> dict[str, Any]:
    """The settings in the form in which they are written.

    Unless they are a part only, a source without address or model is left out: a rate was set
    for a source that is not here.

    >>> unflatten({("site", "digits", "threshold"): 0.5})
    {'site': {'digits': {'threshold': 0.5}}}
    """
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        place = tree
        for part in key[:-1]:
            place = place.setdefault(part, {})
        place[key[-1]] = value
    if "sources" in tree:
        sources = [{"name": name} | fields for name, fields in tree["sources"].items()]
        tree["sources"] = sources if partial else [_present(s) for s in sources if _is_here(s)]
    return tree


def _is_here(source: Mapping[str, Any]) -> bool:
    return not source.get(ABSENT) and {"uri", "model"} <= source.keys()


def _present(source: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in source.items() if field != ABSENT}


def difference(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> dict[Key, Any]:
    """What a narrower layer must say so that `given` becomes `wanted`; both are whole.

    >>> difference({"telemetry_every_s": 5}, {"telemetry_every_s": 60, "site": {}})
    {('telemetry_every_s',): 5}
    """
    before, after = flatten(given), flatten(wanted)
    found = {key: value for key, value in after.items() if before.get(key, ...) != value}
    here = {key[1] for key in after if key[0] == "sources"}
    gone = {key[1] for key in before if key[0] == "sources"} - here
    return found | {("sources", name, ABSENT): True for name in sorted(gone)}


def written(key: Key) -> str:
    """A setting's name as it is printed: `sources.belt.fps`."""
    return ".".join(key)
