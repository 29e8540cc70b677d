"""What a change of a layer does to devices: worked out once for all that have the same layers."""

from collections.abc import Sequence
from typing import Any

import msgspec

from edgeml.errors import UserError
from fleet.layers import Layer, merge, written
from fleet.services.configuration import Layers, made

UNTOUCHED = "nothing changes for it: narrower layers set all that this one changes"


class Effect(msgspec.Struct, frozen=True):
    """What a change does to a device: each setting before and after, or why it cannot be."""

    changes: tuple[tuple[str, Any, Any], ...] = ()
    unfit: str = ""


class Effects:
    """The effect on each device; worked out once for all that have the same layers."""

    def __init__(self, layers: Layers, change: Layer) -> None:
        self._layers = layers
        self._change = change
        self._known: dict[tuple[str, ...], Effect] = {}

    def on(self, device: str) -> Effect:
        """What it does to a device that it chooses."""
        before = self._layers.of(device)
        key = tuple(map(str, before))
        if key not in self._known:
            self._known[key] = self._effect(before, self._layers.of(device, self._change))
        return self._known[key]

    def _effect(self, before: Sequence[Layer], after: Sequence[Layer]) -> Effect:
        old, new = merge(before), merge(after)
        fresh = {key: who for key, who in new.conflicts.items() if key not in old.conflicts}
        if fresh:
            key, who = min(fresh.items())
            why = f"{' and '.join(who)} have one priority and disagree about {written(key)}"
            return Effect(unfit=why)
        try:
            made(new)
        except UserError as error:
            return Effect(unfit=f"{error.what} {error.why}".strip())
        values = [
            (
                written(key),
                old.settings[key].value if key in old.settings else None,
                new.settings[key].value if key in new.settings else None,
            )
            for key in sorted({*old.settings, *new.settings})
        ]
        return Effect(changes=tuple(v for v in values if v[1] != v[2]))
