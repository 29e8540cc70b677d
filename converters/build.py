"""Write the release and its evidence, beside the output folder and then into its place.

The release holds what is decided; the evidence holds what was measured, as an artifact of its
own whose subject is the release.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cloud_sync.evidence import Conditions, Evidence, GateResult, Verification
from cloud_sync.golden import GoldenSet, Recorded, encode_golden, encode_recorded
from cloud_sync.release import Layout, Release, ReleaseBuilder, Variant, write_evidence
from converters.candidates import Artifact, Candidate
from converters.evaluate import latency_of
from converters.gates import accuracy_of
from converters.plan import RUNTIME
from converters.race import Race
from converters.recipe import Recipe
from converters.request import Request
from converters.result import VariantResult
from edgeml.errors import ReleaseError, UserError
from hardware.capabilities import Capabilities
from hardware.probes import instruction_set

_FORMAT = "onnx"


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a release and its evidence are made of.

    `candidates` are those that were chosen; artifacts, recordings and measurements are by
    artifact key. `doubted` are candidates that were measured and left out.
    """

    request: Request
    host: Capabilities
    pipeline: bytes | None
    recipe: Recipe
    candidates: tuple[Candidate, ...]
    doubted: tuple[Candidate, ...]
    artifacts: Mapping[str, Artifact]
    golden: GoldenSet
    recorded: Mapping[str, Recorded]
    race: Race

    def gates(self, candidate: Candidate) -> tuple[GateResult, ...]:
        """The gates of an int8 candidate; the float model is what it was compared with."""
        gates = self.race.gates.get(candidate.key)
        return (gates.accuracy, gates.speed) if gates else ()


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
    if out.exists() and any(out.iterdir()):
        layout = Layout.open(out)
        _refuse_other(layout, release, out)
        _builder(parts).write(layout)  # mends what may be missing
        evidence = write_evidence(layout, release, _evidence(parts, release))
    else:
        evidence = write_evidence(layout, release, _evidence(parts, release))
        os.replace(folder, out)
        _sync(out.parent)
    return Written(
        release=release.digest,
        evidence=evidence,
        variants=tuple(
            _result(parts, candidate, _variant_of(release, candidate), Layout.open(out))
            for candidate in sorted(parts.candidates, key=lambda c: _order(release, c))
        ),
    )


def _builder(parts: Parts) -> ReleaseBuilder:
    builder = ReleaseBuilder(parts.request.name, parts.request.version)
    golden, recipe = encode_golden(parts.golden), parts.recipe.encode()
    ranks = {(v.target, v.precision): v.rank for v in parts.recipe.variants}
    for candidate in parts.candidates:
        artifact = parts.artifacts[candidate.key]
        files: dict[str, tuple[str, bytes | Path]] = {
            "model": ("model.onnx", artifact.path),
            "recipe": ("recipe.json", recipe),
            "golden": ("golden.npz", golden),
            "recorded": ("recorded.npz", encode_recorded([parts.recorded[candidate.key]])),
        }
        if parts.pipeline is not None:
            files["pipeline"] = ("pipeline.toml", parts.pipeline)
        builder.add_variant(
            target=candidate.target.name,
            rank=ranks[candidate.target.name, candidate.precision],
            requires=candidate.target.requirements(),
            format=_FORMAT,
            precision=candidate.precision,
            quantization=artifact.quantization,
            verification=Verification.ARTIFACT_EXECUTED,
            files=files,
        )
    return builder


def _evidence(parts: Parts, release: Release) -> list[Evidence]:
    made = [
        _record(parts, candidate, release, _variant_of(release, candidate).digest)
        for candidate in parts.candidates
    ]
    return made + [_record(parts, candidate, release, "") for candidate in parts.doubted]


def _record(parts: Parts, candidate: Candidate, release: Release, variant: str) -> Evidence:
    """Evidence about a variant, or with an empty `variant` about a candidate left out."""
    measured = parts.race.measurements[candidate.key]
    host = parts.host
    return Evidence(
        stage="convert",
        model=parts.request.name,
        release=release.digest,
        variant=variant,
        target=candidate.target.name,
        runtime=RUNTIME,
        runtime_version=parts.recorded[candidate.key].runtime_version,
        verification=Verification.ARTIFACT_EXECUTED,
        conditions=Conditions(
            hardware_class=host.hardware_class,
            cpu=host.cpu.model,
            instruction_set=instruction_set(host),
            threads=1,
            software=parts.recipe.tools | {"precision": candidate.precision},
        ),
        accuracy=accuracy_of(
            measured.correct,
            metric=parts.request.metric,
            confidence=parts.request.confidence,
        ),
        latency=latency_of(measured.milliseconds),
        memory_bytes=measured.footprint.memory_bytes,
        placement=measured.placement,
        gates=parts.gates(candidate),
    )


def _result(parts: Parts, candidate: Candidate, variant: Variant, layout: Layout) -> VariantResult:
    measured = parts.race.measurements[candidate.key]
    model, recipe = variant.file("model"), variant.file("recipe")
    return VariantResult(
        target=variant.target,
        runtime=RUNTIME,
        file=layout.blobs.path(model.digest),
        format=variant.format,
        precision=variant.precision,
        bytes=model.size,
        verification=variant.verification,
        recipe=layout.blobs.path(recipe.digest),
        digest=variant.digest,
        rank=variant.rank,
        accuracy=accuracy_of(
            measured.correct,
            metric=parts.request.metric,
            confidence=parts.request.confidence,
        ),
        latency=latency_of(measured.milliseconds),
        memory_bytes=measured.footprint.memory_bytes,
        load_ms=measured.footprint.load_ms,
        gates=parts.gates(candidate),
    )


def _variant_of(release: Release, candidate: Candidate) -> Variant:
    wanted = (candidate.target.name, candidate.precision)
    return next(v for v in release.variants if (v.target, v.precision) == wanted)


def _order(release: Release, candidate: Candidate) -> tuple[str, int]:
    variant = _variant_of(release, candidate)
    return variant.target, variant.rank


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
