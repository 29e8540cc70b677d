"""Configurations, layers and prices as text for a terminal."""

import json
from collections.abc import Sequence
from typing import Any

from fleet.configuration_resources import ConfigurationInfo, ConfigurationPlan, LayerInfo
from fleet.cost_resources import PricesInfo
from fleet.rollouts.gates import count
from fleet.show import table

_MAX_CHANGES = 4


def configuration_text(found: ConfigurationInfo, *, origin: bool) -> str:
    """The settings, with where each comes from if wanted, and what the device says."""
    rows = [
        [s["key"], _value(s["value"]), *([s["origin"]] if origin else [])]
        for s in found["settings"]
    ]
    lines = [table(["setting", "value", *(["from"] if origin else [])], rows)]
    lines += [
        f"conflict: {' and '.join(c['layers'])} have one priority and disagree about {c['key']}; "
        "neither counts."
        for c in found["conflicts"]
    ]
    if found["problem"]:
        lines.append(f"problem: {found['problem']} The device keeps what it has.")
    said = f"version {found['version']} is {found['status']}"
    if found["status"] != "committed":
        said += f", the device follows {found['reported_version']}"
    lines.append(said + (f": {found['error']}" if found["error"] else ""))
    return "\n".join(lines)


def layers_text(layers: Sequence[LayerInfo]) -> str:
    """One line a layer."""
    if not layers:
        return (
            "There is no layer yet: each device has what it was given by itself. Make one: "
            "edgeml devices configuration rollout FILE --layer fleet"
        )
    rows = [
        [
            layer["layer"],
            layer["selector"] or "all devices",
            str(layer["priority"]) if layer["kind"] == "label" else "-",
            str(layer["number"]),
            str(len(layer["settings"])),
        ]
        for layer in layers
    ]
    return table(["layer", "devices", "priority", "revision", "settings"], rows)


def layer_text(layer: LayerInfo) -> str:
    """What a layer says, and its history."""
    rows = [
        [
            f"{r['number']}{' (holds)' if r['number'] == layer['number'] else ''}",
            r["created_by"],
            r["rollout"] or "-",
            _value(r["settings"]),
        ]
        for r in layer["revisions"]
    ]
    return (
        f"{layer['layer']}: {layer['selector'] or 'all devices'}, priority {layer['priority']}\n"
        + table(["revision", "by", "rollout", "settings"], rows)
    )


def plan_text(plan: ConfigurationPlan) -> str:
    """What a change would do: the counts, by hardware class, then device by device."""
    counts = plan["counts"]
    head = f"{plan['layer']} changes {count(counts['changed'])}, leaves {counts['same']} as "
    lines = [f"{head}they are, and {counts['unfit']} cannot have it."]
    lines += [
        f"  {name or 'not yet known'}: {', '.join(f'{n} {what}' for what, n in counted.items())}"
        for name, counted in plan["by_class"].items()
    ]
    rows = [
        [d["device"], d["hardware_class"], d["reason"] or _changes(d["changes"])]
        for d in plan["devices"]
    ]
    return "\n".join([*lines, table(["device", "hardware class", "change"], rows)])


def prices_text(prices: PricesInfo) -> str:
    """One line a price."""
    if not prices["prices"]:
        return (
            "No prices are set: bytes are counted, money is not. "
            "Set them: edgeml fleet prices set FILE (docs/cost.md)"
        )
    rows = [
        [p["selector"] or "all others", f"{p['per_mb']:g} {prices['currency']}"]
        for p in prices["prices"]
    ]
    return table(["devices", "a MB"], rows)


def _changes(changes: Sequence[Any]) -> str:
    said = [f"{c['key']} {_value(c['before'])} -> {_value(c['after'])}" for c in changes]
    more = len(said) - _MAX_CHANGES
    return ", ".join(said[:_MAX_CHANGES]) + (f" and {more} more" if more > 0 else "")


def _value(value: Any) -> str:
    return "-" if value is None else json.dumps(value)
