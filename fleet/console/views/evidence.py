"""Evidence as pages show it: what was measured, of what, and what the gates say. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fleet.console.views.wording import clock, number, plural, size, tone
from fleet.resources import EvidenceInfo


class GateWord(msgspec.Struct, frozen=True, kw_only=True):
    """A gate of evidence: its verdict and its sentence."""

    name: str
    result: str
    tone: str
    reason: str


class EvidenceCard(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of evidence: what it is about, its figures, its gates."""

    id: int
    title: str
    time: str
    about: str
    facts: tuple[tuple[str, str], ...]
    gates: tuple[GateWord, ...]


def evidence(
    items: Sequence[EvidenceInfo], versions: Mapping[str, str]
) -> tuple[EvidenceCard, ...]:
    """Evidence, newest first.

    Args:
        items: as the API gives it.
        versions: `model:version` of releases by digest.
    """
    return tuple(_evidence(item, versions) for item in items)


def _evidence(item: EvidenceInfo, versions: Mapping[str, str]) -> EvidenceCard:
    said = item["evidence"]
    release = versions.get(item["release"], f"{item['model']} {item['release'][7:19]}")
    runtime = f"{said.get('runtime', '')} {said.get('runtime_version', '')}".strip()
    return EvidenceCard(
        id=item["id"],
        title=f"{release}, {item['stage']}",
        time=clock(item["received_at"]),
        about=", ".join(filter(None, (said.get("target", ""), runtime, said["verification"]))),
        facts=tuple(_figures(said)),
        gates=tuple(
            GateWord(
                name=gate["name"],
                result=gate["result"],
                tone=tone(gate["result"]),
                reason=gate.get("reason", ""),
            )
            for gate in said.get("gates") or ()
        ),
    )


def _figures(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    accuracy, golden, live = said.get("accuracy"), said.get("golden"), said.get("live")
    if accuracy:
        found.append((accuracy["metric"].capitalize(), accuracy_text(accuracy)))
    if golden:
        found.append(("Golden set", _golden(golden)))
    if live:
        found.append(("Live", _live(live)))
    if said.get("latency"):
        found.append(("Latency", latency_text(said["latency"])))
    if said.get("memory_bytes"):
        found.append(("Memory", size(said["memory_bytes"])))
    return found


def _golden(golden: Mapping[str, Any]) -> str:
    difference, allowed = number(golden["max_difference"]), number(golden["tolerance"])
    samples = plural(golden["samples"], "sample")
    return f"{samples}, largest difference {difference} of {allowed} allowed"


def _live(live: Mapping[str, Any]) -> str:
    results = f"{live['inferred']:,} results in {number(live['seconds'], 's')}"
    return f"{results}, {live.get('errors', 0)} errors, {live.get('confident', 0):,} confident"


def accuracy_text(accuracy: Mapping[str, Any]) -> str:
    """`97.2 % (95 % interval 96.1 to 98.1, n = 1,797)`; of a metric above 1, as it is."""
    is_share = 0 <= accuracy["low"] <= accuracy["high"] <= 1
    value, low, high = (
        f"{accuracy[name] * 100:.1f}" if is_share else number(accuracy[name])
        for name in ("value", "low", "high")
    )
    share = accuracy.get("confidence") or 0.95
    unit = " %" if is_share else ""
    return f"{value}{unit} ({share * 100:g} % interval {low} to {high}, n = {accuracy['n']:,})"


def latency_text(latency: Mapping[str, Any]) -> str:
    """`p50 3.1 ms, p95 4 ms, p99 5 ms`."""
    return ", ".join(f"{p} {number(latency[f'{p}_ms'], 'ms')}" for p in ("p50", "p95", "p99"))
