"""Write the release and its evidence, beside the output folder and then into its place.

The release holds what is decided; the evidence holds what was measured, as an artifact of its
own whose subject is the release.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cloud_sync.evidence import Conditions, Evidence
from cloud_sync.golden import GoldenSet, Recorded, encode_golden, encode_recorded
from cloud_sync.release import (
    Layout,
    Release,
    ReleaseBuilder,
    Variant,
    write_atomically,
    write_evidence,
)
from converters.arena import THREADS
from converters.candidates import Candidate
from converters.contest import Attempt
from converters.diagnosis import Diagnosis
from converters.gates import metric_score
from converters.metrics import Metric
from converters.recipe import Recipe
from converters.report import report_html
from converters.request import Request
from converters.result import Failed, Loss, Skipped, VariantResult
from edgeml.errors import ReleaseError, UserError
from hardware.capabilities import Capabilities
from hardware.probes import instruction_set

REPORT = "report.html"
LOGS = "logs"
FINDINGS = "conversion.json"


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a release and its evidence are made of.

    `candidates` are those that were chosen, `doubted` those that were measured and left out;
    recordings are by target and lane, attempts by the flavours that were searched. `losses` are
    all comparisons of accuracy, `skipped` the targets that could not be executed here, `failed`
    those that have no variant.
    """

    request: Request
    metric: Metric
    host: Capabilities
    pipeline: bytes | None
    recipe: Recipe
    candidates: tuple[Candidate, ...]
    doubted: tuple[Candidate, ...]
    attempts: Mapping[str, tuple[Attempt, ...]]
    golden: GoldenSet
    recorded: Mapping[tuple[str, str], list[Recorded]]
    warnings: tuple[str, ...]
    losses: tuple[Loss, ...] = ()
    diagnosis: Diagnosis = Diagnosis()
    skipped: tuple[Skipped, ...] = ()
    failed: tuple[Failed, ...] = ()


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of the release and of its evidence, and the variants in the release's place."""

    release: str
    evidence: str
    variants: tuple[VariantResult, ...]


def refuse_occupied(request: Request) -> None:
    """Refuse an output folder that holds anything but this very release.

    Raises:
        UserError: it does; the sentence says what.
    """
    out = request.out
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is not a folder.", fix="Choose another --out.")
    if not any(out.iterdir()):
        return
    try:
        held = [release.name for release in Layout.open(out).releases()]
    except ReleaseError:
        raise UserError(
            f"The folder {out} holds something else.",
            why="It is not empty and no release.",
            fix="Choose another --out.",
        ) from None
    wanted = f"{request.name}:{request.version}"
    if held != [wanted]:
        raise UserError(
            f"The folder {out} holds something else.",
            why=f"It holds {', '.join(held) or 'no release'}, not {wanted}.",
            fix="Choose another --out.",
        )


def write(parts: Parts, folder: Path) -> Written:
    """Write the release in `folder`, then put it into the request's place.

    Raises:
        UserError: another release of that name and version is there already.
    """
    layout = Layout.create(folder)
    release = _builder(parts).write(layout)
    out = parts.request.out
    records = _evidence(parts, release)
    report = report_html(parts, release)
    documents = {REPORT: report, FINDINGS: _findings(parts)} | {
        f"{candidate.target.name}-{name}": path.read_bytes()
        for candidate in parts.candidates
        if candidate.compiled is not None
        for name, path in candidate.compiled.documents.items()
    }
    if out.exists() and any(out.iterdir()):
        layout = Layout.open(out)
        _refuse_other(layout, release, out)
        _builder(parts).write(layout)  # mends what may be missing
        evidence = write_evidence(layout, release, records, documents)
        _write_beside(out, documents)
    else:
        evidence = write_evidence(layout, release, records, documents)
        _write_beside(folder, documents)
        os.replace(folder, out)
        _sync(out.parent)
    layout = Layout.open(out)
    return Written(
        release=release.digest,
        evidence=evidence,
        variants=tuple(
            _result(parts, candidate, _variant_of(parts, release, candidate), layout)
            for candidate in sorted(parts.candidates, key=lambda c: _place(parts.recipe, c))
        ),
    )


def _write_beside(folder: Path, documents: dict[str, bytes]) -> None:
    """Write what people read of the evidence, the report and the compilers' logs, as files too."""
    write_atomically(folder / REPORT, documents[REPORT])
    for name, content in documents.items():
        if name.endswith(".log"):
            (folder / LOGS).mkdir(exist_ok=True)
            write_atomically(folder / LOGS / name, content)


def _builder(parts: Parts) -> ReleaseBuilder:
    builder = ReleaseBuilder(parts.request.name, parts.request.version)
    golden, recipe = encode_golden(parts.golden), parts.recipe.encode()
    for candidate in parts.candidates:
        artifact, compiled = candidate.lane.artifact, candidate.compiled
        requires = compiled.requires if compiled else None
        files: dict[str, tuple[str, bytes | Path]] = {
            "model": (f"model.{artifact.format}", artifact.path),
            "recipe": ("recipe.json", recipe),
            "golden": ("golden.npz", golden),
            "recorded": (
                "recorded.npz",
                encode_recorded(parts.recorded[candidate.target.name, candidate.lane.key]),
            ),
        }
        if parts.pipeline is not None:
            files["pipeline"] = ("pipeline.toml", parts.pipeline)
        files |= compiled.files if compiled else {}
        builder.add_variant(
            target=candidate.target.name,
            rank=_place(parts.recipe, candidate)[1],
            requires=requires or candidate.target.requirements(runtimes=[candidate.lane.runtime]),
            format=artifact.format,
            precision=artifact.weights,
            quantization=artifact.quantization,
            verification=candidate.verification,
            files=files,
        )
    return builder


def _evidence(parts: Parts, release: Release) -> list[Evidence]:
    made = [
        _record(parts, candidate, release, _variant_of(parts, release, candidate).digest)
        for candidate in parts.candidates
    ]
    return made + [_record(parts, candidate, release, "") for candidate in parts.doubted]


def _record(parts: Parts, candidate: Candidate, release: Release, variant: str) -> Evidence:
    """Evidence about a variant, or with an empty `variant` about a candidate left out."""
    host, artifact = parts.host, candidate.lane.artifact
    runtime, answered = candidate.lane.runtime, candidate.timing.info
    stand_in = {} if answered.name == runtime else {answered.name: answered.version}
    return Evidence(
        stage="convert",
        model=parts.request.name,
        release=release.digest,
        variant=variant,
        target=candidate.target.name,
        runtime=runtime,
        runtime_version="" if stand_in else answered.version,
        verification=candidate.verification,
        conditions=Conditions(
            hardware_class=host.hardware_class,
            cpu=host.cpu.model,
            instruction_set=instruction_set(host),
            threads=THREADS,
            software=parts.recipe.tools
            | stand_in
            | {"precision": artifact.weights, "quantization": artifact.quantization},
        ),
        accuracy=metric_score(
            parts.metric, candidate.judged.outcomes, confidence=parts.request.confidence
        ),
        latency=candidate.timing.latency,
        memory_bytes=candidate.timing.memory_bytes,
        load_ms=candidate.timing.load_ms,
        placement=candidate.timing.placement,
        gates=candidate.gates,
        accepted=candidate.choice.accepted,
        compiled=candidate.compiled.report if candidate.compiled else None,
    )


def _findings(parts: Parts) -> bytes:
    """What was measured of the conversion as a whole, as JSON."""
    found = {
        "losses": parts.losses,
        "saturation": [
            {"target": c.target.name, "runtime": c.lane.runtime, "found": c.saturation}
            for c in (*parts.candidates, *parts.doubted)
            if c.saturation is not None
        ],
        "diagnosis": parts.diagnosis,
        "attempts": parts.attempts,
        "skipped": parts.skipped,
        "failed": parts.failed,
        "warnings": parts.warnings,
    }
    plain = msgspec.to_builtins(found, str_keys=True)
    return msgspec.json.format(msgspec.json.encode(plain, order="deterministic"))


def _result(parts: Parts, candidate: Candidate, variant: Variant, layout: Layout) -> VariantResult:
    model, recipe = variant.file("model"), variant.file("recipe")
    return VariantResult(
        target=variant.target,
        runtime=candidate.lane.runtime,
        file=layout.blobs.path(model.digest),
        format=variant.format,
        precision=variant.precision,
        quantization=variant.quantization,
        bytes=model.size,
        verification=variant.verification,
        recipe=layout.blobs.path(recipe.digest),
        digest=variant.digest,
        rank=variant.rank,
        accuracy=metric_score(
            parts.metric, candidate.judged.outcomes, confidence=parts.request.confidence
        ),
        latency=candidate.timing.latency,
        memory_bytes=candidate.timing.memory_bytes,
        load_ms=candidate.timing.load_ms,
        gates=candidate.gates,
        compiled=candidate.compiled.report if candidate.compiled else None,
        why=" ".join(
            filter(
                None,
                (f"{candidate.move}: {candidate.choice.reason}", str(candidate.saturation or "")),
            )
        ),
    )


def _variant_of(parts: Parts, release: Release, candidate: Candidate) -> Variant:
    wanted = _place(parts.recipe, candidate)
    return next(v for v in release.variants if (v.target, v.rank) == wanted)


def _place(recipe: Recipe, candidate: Candidate) -> tuple[str, int]:
    """Target and rank: what tells a variant from the others of its release."""
    lane = candidate.lane
    return next(
        (variant.target, variant.rank)
        for variant in recipe.variants
        if (variant.target, variant.runtime) == (candidate.target.name, lane.runtime)
        and variant.precision == lane.artifact.precision
    )


def _refuse_other(layout: Layout, release: Release, out: Path) -> None:
    held = [known.digest for known in layout.releases()]
    if held != [release.digest]:
        raise UserError(
            f"The folder {out} holds another {release.name}.",
            why=f"A release never changes: there is {', '.join(held)}, this one would be "
            f"{release.digest}.",
            fix="Give this one another version and --out, or replay the other's recipe.",
        )


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
