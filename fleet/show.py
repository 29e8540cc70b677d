"""The fleet's answers as text for a terminal."""

import time
from collections.abc import Sequence

from fleet.resources import (
    DeviceInfo,
    Explanation,
    Health,
    Plan,
    ReleaseInfo,
    RolloutDevice,
    RolloutInfo,
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, as wide as they need to be.

    >>> print(table(["a", "b"], [["1", "22"]]))
    a  b
    1  22
    """
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def health_text(health: Health) -> str:
    """Health, and what was counted."""
    rows = [
        ["status", health["status"]],
        ["version", health["version"]],
        ["broker", f"{health['broker']} ({'up' if health['broker_connected'] else 'away'})"],
        ["devices", f"{health['devices']}, {health['online']} online"],
    ]
    if health["frozen"]:
        rows.append(["frozen", health["frozen"]])
    rows += [[name, str(number)] for name, number in health["counters"].items()]
    return table(["part", "state"], rows)


def releases_text(releases: Sequence[ReleaseInfo]) -> str:
    """One line a release."""
    if not releases:
        return "There is no release yet. Push one: edgeml releases push FOLDER"
    return table(
        ["release", "variants", "bytes", "digest", "registered"],
        [
            [
                f"{r['model']}:{r['version']}",
                str(len(r["variants"])),
                str(r["bytes"]),
                r["digest"][:19],
                when(r["created_at"]),
            ]
            for r in releases
        ],
    )


def release_text(release: ReleaseInfo) -> str:
    """A release and its variants."""
    rows = [
        [v["target"], v["precision"], str(v["bytes"]), v["verification"], v["digest"][:19]]
        for v in release["variants"]
    ]
    return (
        f"{release['model']}:{release['version']}  {release['digest']}\n"
        f"{table(['target', 'precision', 'bytes', 'verified', 'digest'], rows)}"
    )


def rollouts_text(rollouts: Sequence[RolloutInfo]) -> str:
    """One line a rollout."""
    if not rollouts:
        return "There is no rollout yet. Create one: edgeml rollout create MODEL:VERSION"
    return table(
        ["rollout", "status", "wave", "devices", "why"],
        [
            [r["id"], r["status"], f"{r['wave']}/{r['waves']}", counts(r), r["sentence"]]
            for r in rollouts
        ],
    )


def rollout_line(rollout: RolloutInfo) -> str:
    """A rollout in one line."""
    return (
        f"{rollout['id']} {rollout['status']}, wave {rollout['wave']}/{rollout['waves']}, "
        f"{counts(rollout)}: {rollout['sentence']}"
    )


def rollout_text(rollout: RolloutInfo) -> str:
    """A rollout and its devices."""
    return f"{rollout_line(rollout)}\n{_places(rollout['devices'])}"


def explanation_text(explanation: Explanation) -> str:
    """The sentence, the gates with their numbers, the devices."""
    gates = [[g["result"], g["name"], g["reason"]] for g in explanation["gates"]]
    parts = [f"{explanation['id']} is {explanation['status']}. {explanation['sentence']}"]
    if gates:
        parts.append(table(["gate", "name", "why"], gates))
    parts.append(_places(explanation["devices"]))
    return "\n\n".join(parts)


def plan_text(plan: Plan) -> str:
    """What each device would get."""
    rows = [
        [
            d["device"],
            d["hardware_class"] or "-",
            f"{d['target']} {d['precision']}" if d["variant"] else "nothing",
            str(d["bytes"]),
            d["reason"],
        ]
        for d in plan["devices"]
    ]
    classes = "\n".join(
        f"  {name or 'unknown'}: " + ", ".join(f"{n} x {what}" for what, n in counted.items())
        for name, counted in plan["by_class"].items()
    )
    return (
        f"{plan['model']}:{plan['version']} fits {plan['fitting']} of "
        f"{plan['fitting'] + plan['unfitting']} devices, {plan['bytes']} bytes in all.\n"
        f"{classes}\n{table(['device', 'hardware class', 'variant', 'bytes', 'why'], rows)}"
    )


def devices_text(devices: Sequence[DeviceInfo]) -> str:
    """One line a device."""
    if not devices:
        return "There is no device yet. Enrol one: edgeml fleet enroll NAME"
    return table(
        ["device", "online", "hardware class", "labels", "runs"],
        [
            [
                d["device"],
                "yes" if d["online"] else "no",
                d["hardware_class"] or "-",
                ",".join(f"{key}={value}" for key, value in d["labels"].items()) or "-",
                _runs(d),
            ]
            for d in devices
        ],
    )


def device_text(device: DeviceInfo) -> str:
    """A device, desired beside reported."""
    wanted = device["desired"]["models"] if device["desired"] else {}
    said = device["reported"]["models"] if device["reported"] else {}
    rows = [
        [
            model,
            str(wanted.get(model, {}).get("release_version", "-")),
            str(said.get(model, {}).get("running_version", "-")),
            str(said.get(model, {}).get("phase", "-")),
            str(said.get(model, {}).get("reason", "")),
        ]
        for model in sorted({*wanted, *said})
    ]
    sources = ", ".join(s["name"] for s in device["configuration"].get("sources", ())) or "none"
    return (
        f"{devices_text([device])}\n\n"
        f"{table(['model', 'desired', 'running', 'phase', 'why'], rows)}\n\n"
        f"configuration {device['configuration'].get('config_version', 0)}, sources: {sources}"
    )


def counts(rollout: RolloutInfo) -> str:
    """`2 committed, 1 waiting`."""
    return ", ".join(f"{number} {name}" for name, number in rollout["counts"].items()) or "none"


def when(unix: float) -> str:
    """A time for people, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(unix))


def _places(devices: Sequence[RolloutDevice]) -> str:
    return table(
        ["device", "wave", "outcome", "phase", "runs", "why"],
        [
            [
                d["device"],
                str(d["wave"] or "-"),
                d["outcome"],
                d["phase"] or "-",
                d["running_version"] or "-",
                d["reason"],
            ]
            for d in devices
        ],
    )


def _runs(device: DeviceInfo) -> str:
    said = device["reported"]["models"] if device["reported"] else {}
    runs = [f"{model}:{m['running_version']}" for model, m in said.items() if m["running_version"]]
    return ", ".join(runs) or "-"
