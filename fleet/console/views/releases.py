"""Models and releases: lineage, variants with their figures, and who signed. Pure."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from fleet.console import paths
from fleet.console.views.evidence import accuracy_text
from fleet.console.views.wording import clock, day, number, plural, size, tone
from fleet.resources import EvidenceInfo, ModelInfo, ReleaseInfo, RolloutInfo, VariantInfo
from fleet.services.signatures import SignatureInfo

_TRUST = {"signed": "good", "waits for signatures": "warn", "unsigned": "bad"}
_INPUTS = {
    "model": "Trained model",
    "pipeline": "Pipeline",
    "calibration": "Calibration data",
    "evaluation": "Evaluation data",
}


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the converter measured of a variant; None where it did not."""

    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    accuracy_text: str = ""
    p50_ms: float | None = None
    p95_ms: float | None = None
    memory: int = 0
    runtime: str = ""


class VariantRow(msgspec.Struct, frozen=True, kw_only=True):
    """A variant of a release, as the table shows it."""

    key: str
    target: str
    precision: str
    place: str
    size: str
    accuracy: str
    latency: str
    memory: str
    checked: str
    needs: str
    bytes: int
    figures: Figures


class ReleaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """A release in the line of its model."""

    name: str
    version: str
    address: str
    trust: str
    trust_tone: str
    made: str
    about: str
    running: int
    running_address: str
    accuracy: str
    rollouts: tuple[tuple[str, str, str], ...]


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the list; `running` are versions with how many devices run them.

    `newest` is its latest release with the newest rollout of the model, whatever that is of.
    """

    name: str
    address: str
    releases: str
    latest: str
    running: tuple[tuple[str, int, str], ...]
    newest: ReleaseRow | None = None


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """Who signed a release: the sentence, its tone, and names and values."""

    sentence: str
    tone: str
    facts: tuple[tuple[str, str], ...]
    command: str = ""


def models(
    found: Sequence[ModelInfo], newest: Mapping[str, ReleaseRow] = MappingProxyType({})
) -> tuple[ModelRow, ...]:
    """The models, by name."""
    return tuple(
        ModelRow(
            name=info["model"],
            address=paths.model(info["model"]),
            releases=plural(info["releases"], "release"),
            latest=info["latest"],
            newest=newest.get(info["model"]),
            running=tuple(
                (version, count, _devices(info["model"], version))
                for version, count in sorted(
                    info["running"].items(), key=lambda one: (-one[1], one[0])
                )
            ),
        )
        for info in found
    )


def lineage(
    releases: Sequence[ReleaseInfo],
    evidence: Mapping[str, Sequence[EvidenceInfo]],
    running: Mapping[str, int],
    rollouts: Sequence[RolloutInfo],
) -> tuple[ReleaseRow, ...]:
    """The releases of a model, newest first, with what became of them.

    Args:
        releases: of one model, newest first.
        evidence: of converters, by the release's digest.
        running: how many devices run a version.
        rollouts: of the model, newest first.
    """
    return tuple(
        _release(
            info, evidence.get(info["digest"], ()), running.get(info["version"], 0),
            [one for one in rollouts if one["release"] == info["digest"]],
        )
        for info in releases
    )  # fmt: skip


def newest(
    info: ReleaseInfo, evidence: Sequence[EvidenceInfo], rollouts: Sequence[RolloutInfo]
) -> ReleaseRow:
    """The latest release of a model, with rollouts of the model."""
    return _release(info, evidence, 0, rollouts)


def _release(
    info: ReleaseInfo,
    evidence: Sequence[EvidenceInfo],
    running: int,
    rollouts: Sequence[RolloutInfo],
) -> ReleaseRow:
    rows = variants(info, evidence)
    known = [row for row in rows if row.figures.accuracy is not None]
    best = max(known, key=lambda row: row.figures.accuracy or 0.0, default=None)
    return ReleaseRow(
        name=f"{info['model']}:{info['version']}",
        version=info["version"],
        address=paths.release(info["model"], info["version"]),
        trust=info["trust"],
        trust_tone=trust_tone(info["trust"]),
        made=f"registered {clock(info['created_at'])} by {info['created_by']}",
        about=f"{plural(len(info['variants']), 'variant')}, {size(info['bytes'])}",
        running=running,
        running_address=_devices(info["model"], info["version"]),
        accuracy=f"{best.target} {best.precision}: {best.accuracy}" if best else "",
        rollouts=tuple((one["id"], one["status"], paths.rollout(one["id"])) for one in rollouts),
    )


def variants(info: ReleaseInfo, evidence: Sequence[EvidenceInfo]) -> tuple[VariantRow, ...]:
    """The variants of a release with what the converter measured, by target, the best first."""
    measured = {
        item["variant"]: _figures(item["evidence"])
        for item in reversed(evidence)
        if item["stage"] == "convert" and item["variant"]
    }
    ordered = sorted(info["variants"], key=lambda one: (one["target"], one["rank"]))
    return tuple(_variant(one, measured.get(one["digest"], Figures())) for one in ordered)


def _figures(said: Mapping[str, Any]) -> Figures:
    accuracy, latency = said.get("accuracy") or {}, said.get("latency") or {}
    return Figures(
        accuracy=accuracy.get("value"),
        low=accuracy.get("low"),
        high=accuracy.get("high"),
        accuracy_text=accuracy_text(accuracy) if accuracy else "",
        p50_ms=latency.get("p50_ms"),
        p95_ms=latency.get("p95_ms"),
        memory=said.get("memory_bytes") or 0,
        runtime=f"{said.get('runtime', '')} {said.get('runtime_version', '')}".strip(),
    )


def _variant(info: VariantInfo, figures: Figures) -> VariantRow:
    latency = ""
    if figures.p95_ms is not None and figures.p50_ms is not None:
        latency = f"p50 {number(figures.p50_ms, 'ms')}, p95 {number(figures.p95_ms, 'ms')}"
    return VariantRow(
        key=info["digest"],
        target=info["target"],
        precision=info["precision"],
        place="best of its target" if info["rank"] == 0 else f"choice {info['rank'] + 1}",
        size=size(info["bytes"]),
        accuracy=figures.accuracy_text or "not measured",
        latency=latency or "not measured",
        memory=size(figures.memory) if figures.memory else "not measured",
        checked=info["verification"],
        needs=needs(info["requires"]),
        bytes=info["bytes"],
        figures=figures,
    )


def needs(requires: Mapping[str, Any]) -> str:
    """What a variant needs of a device, in words."""
    runtimes = [
        f"{one['name']} {one.get('versions') or ''}".strip()
        for one in requires.get("runtimes") or ()
    ]
    features = list(requires.get("cpu_features") or ())
    memory = requires.get("memory_bytes") or 0
    accelerator = (requires.get("accelerator") or {}).get("part", "")
    parts = [
        " or ".join(runtimes),
        accelerator,
        ", ".join(features),
        size(memory) if memory else "",
    ]
    return "; ".join(part for part in parts if part) or "nothing"


def trust_tone(trust: str) -> str:
    """How a release's standing is coloured."""
    return _TRUST.get(trust, "idle")


def signature(info: SignatureInfo) -> Signature:
    """Who signed, in a sentence with its facts."""
    who, role = ", ".join(info["signed"]), info["role"]
    facts = [("Role", role), ("Signed by", who), ("May still sign", ", ".join(info["may_sign"]))]
    if info["threshold"]:
        facts.append(("Signatures", f"{len(info['signed'])} of {info['threshold']} needed"))
    if info["expires_at"] is not None:
        facts.append(("Holds until", day(info["expires_at"])))
    kept = tuple((name, text) for name, text in facts if text)
    if info["state"] == "signed":
        text = f"Signed by {who}, as {role}: devices take it."
        return Signature(sentence=text, tone="good", facts=kept)
    if info["state"] == "waits for signatures":
        missing = max(0, info["threshold"] - len(info["signed"]))
        text = f"It waits for {plural(missing, 'signature')} of {role}: no rollout can begin."
        return Signature(sentence=text, tone="warn", facts=kept, command="edgeml trust export")
    if not role:
        text = "Releases are not signed in this fleet: devices take what the director names."
        return Signature(sentence=text, tone="warn", facts=kept, command="edgeml trust init")
    text = f"Nobody has signed it; {role} would. Devices refuse it."
    return Signature(sentence=text, tone="bad", facts=kept, command="edgeml trust show")


def origin(found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What a release was made of and with, name by name; empty where nobody wrote it down."""
    inputs: Mapping[str, Any] = found.get("inputs") or {}
    tools: Mapping[str, Any] = found.get("tools") or {}
    facts = [(name, short(str(inputs[key]))) for key, name in _INPUTS.items() if inputs.get(key)]
    if tools:
        made = ", ".join(f"{name} {version}" for name, version in sorted(tools.items()))
        facts.append(("Made with", made))
    return tuple(facts)


def proof(evidence: Sequence[EvidenceInfo]) -> tuple[tuple[str, str, str], ...]:
    """What devices proved of a release: stage and verdict, tone, and of how many devices."""
    found: dict[tuple[str, str], set[str]] = {}
    for item in evidence:
        if item["device"]:
            results = {gate["result"] for gate in item["evidence"].get("gates") or ()}
            verdict = next((v for v in ("fail", "undecided") if v in results), "pass")
            found.setdefault((item["stage"], verdict), set()).add(item["device"])
    return tuple(
        (f"{stage}: {verdict}", tone(verdict), plural(len(devices), "device"))
        for (stage, verdict), devices in sorted(found.items())
    )


def short(digest: str) -> str:
    """The beginning of a digest: enough to tell two apart."""
    return digest.removeprefix("sha256:")[:12]


def _devices(model: str, version: str) -> str:
    return paths.to("/devices", model=model, version=version)
