"""The fleet's answers as text for a terminal."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fleet.cost_resources import CostInfo, CostSummary
from fleet.resources import (
    DeviceInfo,
    Explanation,
    Health,
    Plan,
    PlannedDevice,
    ReleaseInfo,
    RolloutDevice,
    RolloutInfo,
    SecurityEventInfo,
)
from fleet.rollouts.gates import count

_MAX_NAMED = 10
_MAX_PLANNED = 100


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
    rows.append(["trust", health["trust"]])
    if health["frozen"]:
        rows.append(["frozen", health["frozen"]])
    rows += [[name, str(number)] for name, number in health["counters"].items()]
    return table(["part", "state"], rows)


def security_text(events: Sequence[SecurityEventInfo]) -> str:
    """One line an event, the newest first."""
    if not events:
        return "Nothing was refused."
    rows = [[when(e["at"]), e["device"], e["kind"], " ".join(e["detail"].split())] for e in events]
    return table(["at", "device", "kind", "what"], rows)


def releases_text(releases: Sequence[ReleaseInfo]) -> str:
    """One line a release."""
    if not releases:
        return "There is no release yet. Push one: edgeml releases push FOLDER"
    pushed = any(r["registry"] for r in releases)
    return table(
        [
            *("release", "variants", "bytes", "digest", "trust", "registered"),
            *(["registry"] if pushed else []),
        ],
        [
            [
                f"{r['model']}:{r['version']}",
                str(len(r["variants"])),
                str(r["bytes"]),
                r["digest"][:19],
                r["trust"],
                when(r["created_at"]),
                *([r["registry"]] if pushed else []),
            ]
            for r in releases
        ],
    )


def release_text(release: ReleaseInfo) -> str:
    """A release and its variants."""
    head = ["target", "runtime", "precision", "bytes", "verified", "digest"]
    rows = [
        [
            v["target"],
            ", ".join(runtime["name"] for runtime in v["requires"].get("runtimes", ())) or "-",
            v["precision"],
            str(v["bytes"]),
            v["verification"],
            v["digest"][:19],
        ]
        for v in release["variants"]
    ]
    name = f"{release['model']}:{release['version']}"
    there = f"\nregistry: {release['registry']}" if release["registry"] else ""
    return f"{name}  {release['digest']}  {release['trust']}{there}\n{table(head, rows)}"


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


def rollout_summary(rollout: RolloutInfo) -> str:
    """A rollout without its devices, however many: sentence, waves, counts, and where more is."""
    name = rollout["version"]
    if rollout["kind"] == "release":
        name = f"{rollout['model']}:{name}"
    sizes = [_wave_size(wave) for wave in rollout["policy"]["waves"]]
    waves = f"wave {min(rollout['wave'], rollout['waves'])} of {rollout['waves']}"
    rows = [
        ["rollout", f"{rollout['id']}  {name}  {rollout['status']}"],
        ["why", rollout["sentence"] or rollout["reason"]],
        ["waves", f"{waves} ({', '.join(sizes)})"],
        ["devices", f"{counts(rollout)}, of {len(rollout['devices'])}"],
    ]
    if rollout["cost"] and rollout["cost"]["bytes"]:
        rows.append(["cost", cost_text(rollout["cost"])])
    rows.append(["more", f"edgeml rollout status {rollout['id']}  (each device)"])
    rows.append(["", f"edgeml rollout explain {rollout['id']}  (each gate, with its numbers)"])
    return "\n".join(f"{part:9}{said}" for part, said in rows if said)


def _wave_size(wave: Mapping[str, Any]) -> str:
    return count(wave["count"]) if wave.get("count") else f"{wave.get('percent') or 0:g} %"


def rollout_text(rollout: RolloutInfo) -> str:
    """A rollout and its devices."""
    spent = f"cost so far: {cost_text(rollout['cost'])}\n" if rollout["cost"] else ""
    return f"{rollout_line(rollout)}\n{spent}{_places(rollout['devices'])}"


def explanation_text(explanation: Explanation) -> str:
    """The sentence, the gates with their numbers, the devices."""
    gates = [[g["result"], g["name"], g["reason"]] for g in explanation["gates"]]
    parts = [f"{explanation['id']} is {explanation['status']}. {explanation['sentence']}"]
    if gates:
        parts.append(table(["gate", "name", "why"], gates))
    parts.append(_places(explanation["devices"]))
    return "\n\n".join(parts)


def plan_text(
    plan: Plan,
    waves: Sequence[tuple[str, Sequence[str]]],
    online: Collection[str],
    taken: Mapping[str, str],
) -> str:
    """What each device would get, and in which wave.

    Args:
        plan: the plan.
        waves: of each wave its size in words and the devices that it adds.
        online: the devices that are online.
        taken: the devices that another rollout of the model has, and which one.
    """
    number_of = {device: n for n, (_, added) in enumerate(waves, 1) for device in added}
    planned = sorted(plan["devices"], key=lambda d: (number_of.get(d["device"], 99), d["device"]))
    rows = [
        [
            d["device"],
            str(number_of.get(d["device"], "-")),
            "yes" if d["device"] in online else "no",
            d["hardware_class"] or "-",
            f"{d['target']} {d['precision']}, {d['verification']}" if d["variant"] else "nothing",
            str(d["bytes"]),
            "-" if d["money"] is None else f"{d['money']:.4f}",
            _planned(d, number_of, taken),
        ]
        for d in planned[:_MAX_PLANNED]
    ]
    classes = [
        f"  {name or 'unknown'}: " + ", ".join(f"{n} x {what}" for what, n in counted.items())
        for name, counted in plan["by_class"].items()
    ]
    lines = [
        f"  wave {n} ({size}): {_added(added, online)}" for n, (size, added) in enumerate(waves, 1)
    ]
    money = f"money ({plan['currency']})"
    head = ["device", "wave", "online", "hardware class", "variant", "bytes", money, "why"]
    total = plan["fitting"] + plan["unfitting"]
    more = max(0, len(planned) - _MAX_PLANNED)
    fits = f"{plan['model']}:{plan['version']} fits {plan['fitting']} of {total} devices"
    return "\n".join(
        [
            f"{fits}, {plan['bytes']:,} bytes in all.",
            *_costs(plan),
            *classes,
            *[f"  {number} cannot: {why}" for why, number in plan["reasons"].items()],
            *lines,
            table(head, rows),
            *([f"and {more} more devices; --json has them all"] if more else []),
        ]
    )


def cost_text(cost: CostSummary) -> str:
    """What a rollout cost: `12,345 bytes, 0.25 EUR, 0.4 J an inference on 2 devices that ...`."""
    said = [f"{cost['bytes']:,} bytes"]
    if cost["money"] is not None:
        said.append(f"{cost['money']:.2f} {cost['currency']}")
        if cost["unpriced"]:
            said.append(f"{cost['unpriced']} devices without a price")
    energy = cost["energy_per_inference_j"]
    if energy is not None:
        among = cost["energy_devices"]
        measure = "device that measures" if among == 1 else "devices that measure"
        said.append(f"{energy:.3g} J an inference on {among} {measure} it")
    return ", ".join(said)


def costs_text(cost: CostInfo) -> str:
    """What a rollout cost, in all and each device."""
    rows = [
        [one["device"], f"{one['bytes']:,}", "-" if one["money"] is None else f"{one['money']:.4f}"]
        for one in cost["devices"]
    ]
    return "\n".join([cost_text(cost), table(["device", "bytes", cost["currency"]], rows)])


def _costs(plan: Plan) -> list[str]:
    """What a plan costs on the network, and who must wait for a budget."""
    said = f"On the network about {plan['cost_bytes']:,} bytes"
    if plan["money"] is not None:
        said += f", {plan['money']:.2f} {plan['currency']}"
    lines = [f"{said}; what devices have is not counted."]
    if plan["over_budget"]:
        lines.append(f"{plan['over_budget']} devices must wait for their data budget.")
    return lines


def devices_text(devices: Sequence[DeviceInfo]) -> str:
    """One line a device."""
    if not devices:
        return "There is no device yet. Enrol one: edgeml fleet enroll NAME"
    return table(
        ["device", "online", "hardware class", "labels", "runs"],
        [
            [
                d["device"],
                "revoked" if d["revoked_at"] else "yes" if d["online"] else "no",
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
            str(wanted.get(model, {}).get("release_version", "")) or "nothing",
            str(said.get(model, {}).get("running_version", "")) or "nothing",
            str(said.get(model, {}).get("phase", "-")),
            str(said.get(model, {}).get("reason", "")),
        ]
        for model in sorted({*wanted, *said})
    ]
    parts = [devices_text([device])]
    if device["revoked_at"]:
        parts.append(
            f"revoked at {when(device['revoked_at'])}; to let a new machine take its place: "
            f"edgeml fleet enroll {device['device']}"
        )
    if rows:
        parts.append(table(["model", "desired", "running", "phase", "why"], rows))
    parts.append(f"{configuration_text(device)}\n{sources_text(device)}")
    return "\n\n".join(parts)


def sources_text(device: DeviceInfo) -> str:
    """The sources that are configured and those that run, and how each was at the last hello."""
    named = [source["name"] for source in device["configuration"].get("sources", ())]
    said = device["reported"].get("sources", {}) if device["reported"] else {}
    text = f"sources: {', '.join(named) or 'none'}"
    if not said:
        return text
    rows = [
        [name, one["model"], one["state"], _lasted(one["seconds"]), one["reason"]]
        for name, one in sorted(said.items())
    ]
    return f"{text}\n\n{table(['source', 'model', 'state', 'for', 'why'], rows)}"


def configuration_text(device: DeviceInfo) -> str:
    """`configuration 4`, and whether the device runs it; its reason if it refused it."""
    wanted = device["configuration"].get("config_version", 0)
    text, said = f"configuration {wanted}", device["reported"]
    if not wanted:
        return (
            f"no configuration yet; give it one: edgeml devices configure {device['device']} FILE"
        )
    if said is None:
        return f"{text}, the device has not said hello yet"
    if said["config_version"] == wanted:
        return f"{text}, the device runs it"
    refused = refusal(device)
    if refused:
        return f"{text} REFUSED, {refused}"
    return (
        f"{text}; the device last said that it runs {said['config_version']} (it tells every 30 s)"
    )


def refusal(device: DeviceInfo) -> str:
    """What the device runs since it refused its configuration, and why; empty if it did not."""
    said, desired = device["reported"] or {}, device["desired"]
    heard = (said.get("desired_epoch", 0), said.get("desired_counter", 0))
    if not said.get("config_error") or (desired and heard < (desired["epoch"], desired["counter"])):
        return ""
    return f"runs {said['config_version']}: {said['config_error']}"


def counts(rollout: RolloutInfo) -> str:
    """`2 committed, 1 waiting`."""
    return ", ".join(f"{number} {name}" for name, number in rollout["counts"].items()) or "none"


def when(unix: float) -> str:
    """A time for people, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(unix))


def _lasted(seconds: float) -> str:
    """`12 s`, `5 min`, `3 h`, `2 d`: the largest unit of which it has two."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


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


def _planned(planned: PlannedDevice, number_of: Mapping[str, int], taken: Mapping[str, str]) -> str:
    device = planned["device"]
    if device in taken:
        return f"{taken[device]} has it until that has ended."
    if planned["variant"] and device not in number_of:
        return "The policy's waves end before it."
    return planned["reason"]


def _added(devices: Sequence[str], online: Collection[str]) -> str:
    """`cam-1 (online), cam-2 (offline)`."""
    if not devices:
        return "nobody new"
    shown = [f"{d} ({'online' if d in online else 'offline'})" for d in devices[:_MAX_NAMED]]
    left = devices[_MAX_NAMED:]
    if left:
        shown.append(f"and {len(left)} more, {sum(d in online for d in left)} of them online")
    return ", ".join(shown)


def _runs(device: DeviceInfo) -> str:
    said = device["reported"]["models"] if device["reported"] else {}
    runs = [f"{model}:{m['running_version']}" for model, m in said.items() if m["running_version"]]
    return ", ".join(runs) or "-"
