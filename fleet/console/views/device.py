"""A device's page: its twin, what it said, its bytes and configuration. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cloud_sync.evidence import GateResult
from fleet.configuration_resources import ConfigurationInfo
from fleet.console import paths
from fleet.console.views.devices import models_of
from fleet.console.views.rollout import GateLine, gate_line
from fleet.console.views.wording import clock, day, size, tone
from fleet.resources import DeviceInfo, EvidenceInfo, LedgerInfo
from fleet.rollouts.telling import telling
from fleet.services.device_history import HistoryEntry

_ENDS = frozenset({"committed", "rolled_back", "refused"})


class TwinLine(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is desired beside what the device reports of it."""

    name: str
    desired: str
    reported: str
    tone: str
    note: str = ""


class HistoryLine(msgspec.Struct, frozen=True, kw_only=True):
    """A change of what a device said of a model."""

    time: str
    what: str
    tone: str
    reason: str
    rollout: str
    address: str
    gate: GateLine | None = None  # the one that tells most of how it ended


def twin(info: DeviceInfo) -> tuple[TwinLine, ...]:
    """Desired against reported, line by line; what differs comes with its reason."""
    desired, reported = info["desired"], info["reported"] or {}
    wanted: Mapping[str, Mapping[str, Any]] = desired["models"] if desired else {}
    said = models_of(info)
    lines = [_model(name, wanted.get(name), said.get(name)) for name in sorted({*wanted, *said})]
    if desired:
        lines.append(_configuration(desired["config_version"], reported))
        version = f"{desired['epoch']}.{desired['counter']}"
        known = f"{reported.get('desired_epoch', 0)}.{reported.get('desired_counter', 0)}"
        lines.append(
            TwinLine(
                name="desired state",
                desired=version,
                reported=known if reported else "nothing yet",
                tone="good" if known == version else "busy",
                note=f"issued {clock(desired['issued_at'])}, holds until "
                f"{day(desired['expires_at'])}",
            )
        )
    return tuple(lines)


def _model(name: str, wanted: Mapping[str, Any] | None, said: Mapping[str, Any] | None) -> TwinLine:
    runs = str((said or {}).get("running_version") or "") or "runs nothing"
    phase, note = str((said or {}).get("phase", "")), str((said or {}).get("reason", ""))
    if wanted is None:
        return TwinLine(
            name=name, desired="nothing", reported=runs, tone="idle",
            note="The fleet wants nothing of this model; what runs, goes on.",
        )  # fmt: skip
    is_there = said is not None and wanted.get("release") == said.get("running_release")
    if not is_there and phase:
        note = f"{phase.replace('_', ' ')}{': ' + note if note else ''}"
    colour = "good" if is_there else tone(phase)
    return TwinLine(
        name=name,
        desired=str(wanted.get("release_version") or "no release"),
        reported=runs,
        tone="busy" if colour in {"good", "idle"} and not is_there else colour,
        note=note,
    )


def _configuration(version: int, reported: Mapping[str, Any]) -> TwinLine:
    known, error = int(reported.get("config_version", 0)), str(reported.get("config_error", ""))
    is_refused = bool(error) and known < version
    return TwinLine(
        name="configuration",
        desired=f"version {version}",
        reported=f"version {known}" if reported else "nothing yet",
        tone="bad" if is_refused else "good" if known >= version else "busy",
        note=f"refused: {error}" if is_refused else "",
    )


def sources(info: DeviceInfo) -> tuple[TwinLine, ...]:
    """The device's sources as they are."""
    said: Mapping[str, Mapping[str, Any]] = (info["reported"] or {}).get("sources", {})
    tones = {"running": "good", "starting": "busy", "stalled": "warn", "lost": "bad"}
    return tuple(
        TwinLine(
            name=name,
            desired=str(source.get("model", "")),
            reported=str(source.get("state", "")),
            tone=tones.get(str(source.get("state", "")), "idle"),
            note=str(source.get("reason", "")),
        )
        for name, source in sorted(said.items())
    )


def about(info: DeviceInfo) -> list[tuple[str, str]]:
    """What a device is, name by name."""
    can: Mapping[str, Any] = info["capabilities"] or {}
    cpu: Mapping[str, Any] = can.get("cpu") or {}
    runtimes = [f"{r['name']} {r['version']}" for r in can.get("runtimes") or ()]
    found = [
        ("Hardware class", info["hardware_class"]),
        ("Processor", f"{cpu.get('model', '')}, {cpu.get('cores', '?')} cores" if cpu else ""),
        ("Memory", size(int(can["memory_bytes"])) if can.get("memory_bytes") else ""),
        ("Accelerators", ", ".join(map(_accelerator, can.get("accelerators") or ()))),
        ("Runtimes", ", ".join(runtimes)),
        ("Agent", info["agent_version"]),
        ("Enrolled", clock(info["enrolled_at"])),
        ("Key", info["key_id"][:16]),
    ]
    return [(name, text) for name, text in found if text]


def _accelerator(found: Mapping[str, Any]) -> str:
    """A part, and what drives it: `LFE5U-25F (simulated FPGA)`."""
    return str(found["part"]) + (f" ({found['driver']})" if found.get("driver") else "")


def history(
    entries: Sequence[HistoryEntry], evidence: Sequence[EvidenceInfo] = ()
) -> tuple[HistoryLine, ...]:
    """What a device said of its releases, newest first, with what it measured at their ends."""
    measured = {
        (one["rollout"], one["release"]): one["evidence"].get("gates") or ()
        for one in reversed(evidence)
    }
    return tuple(
        HistoryLine(
            time=clock(entry["at"] if entry["at"] is not None else entry["received_at"]),
            what=f"{entry['model']}:{entry['version']} {entry['phase'].replace('_', ' ')}",
            tone=tone(entry["phase"]),
            reason=entry["reason"],
            rollout=entry["rollout"],
            address=paths.rollout(entry["rollout"]) if entry["rollout"] else "",
            gate=_telling(measured.get((entry["rollout"], entry["release"]), ()))
            if entry["phase"] in _ENDS
            else None,
        )
        for entry in entries
    )


def _telling(gates: Sequence[Mapping[str, Any]]) -> GateLine | None:
    found = telling(msgspec.convert(gate, GateResult) for gate in gates)
    return None if found is None else gate_line(msgspec.to_builtins(found))


def ledger(info: LedgerInfo) -> tuple[list[dict[str, Any]], str]:
    """The rows of the ledger, and the sentence of what it all came to."""
    rows = [
        {
            "key": f"{line['month']} {line['rollout']} {line['cause']}",
            "month": line["month"],
            "rollout": line["rollout"] or "none",
            "address": paths.rollout(line["rollout"]) if line["rollout"] else "",
            "cause": line["cause"],
            "received": size(line["received"]),
            "sent": size(line["sent"]),
            "note": line["note"],
        }
        for line in info["lines"]
    ]
    received = sum(line["received"] for line in info["lines"])
    sent = sum(line["sent"] for line in info["lines"])
    return rows, f"{size(received)} received and {size(sent)} sent, as the device's kernel counted."


def settings(info: ConfigurationInfo) -> tuple[list[dict[str, str]], str, str]:
    """The rows of a configuration with their origins, its sentence, and its tone."""
    rows = [
        {"key": one["key"], "value": _value(one["value"]), "origin": one["origin"]}
        for one in info["settings"]
    ]
    follows, new = "The device follows", f"version {info['version']}"
    said = {
        "committed": (f"{follows} {new}.", "good"),
        "pending": (f"{follows} version {info['reported_version']}; {new} is on its way.", "busy"),
        "refused": (f"The device refused {new}: {info['error']}", "bad"),
    }
    words, colour = said.get(info["status"], (info["status"], "idle"))
    if info["problem"]:
        words, colour = f"{info['problem']} The device keeps what it has.", "bad"
    return rows, words, colour


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
