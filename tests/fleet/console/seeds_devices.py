"""A site with two presses and two signed releases: what the pages of both show."""

import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np

from cloud_sync.commands import CommandKind, CommandResult, CommandStatus
from cloud_sync.evidence import (
    Accuracy,
    Conditions,
    Evidence,
    GateResult,
    GoldenResult,
    Latency,
    LiveResult,
    Verdict,
    Verification,
)
from cloud_sync.messages import (
    Cause,
    DesiredModel,
    LedgerEntry,
    LedgerRecord,
    Measure,
    Phase,
    StateRecord,
    TrialPolicy,
    Window,
    encode,
)
from cloud_sync.release import Layout, Release, ReleaseBuilder, oci, write_evidence
from cloud_sync.sketch import Sketch
from fleet.db import tables
from fleet.services import Services, commands, devices, ledger, releases
from hardware.requirements import Requirements, RuntimeRequirement
from tests.fleet.conftest import enroll_locally, reported
from tests.fleet.console.seeds import OPERATOR, seed
from tests.fleet.console.seeds import devices as cameras

REASON = "3% of 60 results were confident (95 % interval 1% to 11%); at least 77% is wanted"
HOSTILE = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)>"
REPORT = """<!DOCTYPE html><html lang="en"><head><title>report</title>
<style>body {{ font: 15px system-ui; margin: 24px }}</style></head><body>
<h1>digits:{version}</h1><p id="proof">int8 loses 0.2 points, at most 1 is allowed.</p>
<script>top.document.title = "taken"; document.body.textContent = "taken"</script>
</body></html>"""
WINDOWS = 60


@seed
def site(services: Services) -> None:
    """Two presses; `press-1` took 2.1.0 back and says why, `press-2` is only enrolled."""
    old, new = (_release(services, version, data) for version, data in _VERSIONS)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("press-1", "press-2"):
            enroll_locally(services, Path(folder), name, site="north", line="3").close()
    devices.configure(services, OPERATOR, "press-1", {"telemetry_every_s": 5.0})
    _runs(services, "press-1", old, new)
    _measures(services, "press-1", old, new)
    _answers(services, "press-1")


@seed
def fill(services: Services, count: str) -> None:
    """Some cameras beside them, of three sites, which run 2.0.0."""
    known = {one["version"]: one["digest"] for one in releases.list_releases(services, "digits")}
    cameras(services, int(count), "2.0.0", known["2.0.0"])


@seed
def leave(services: Services, device: str) -> None:
    """A device goes offline."""
    with services.database.write() as session:
        session.get_one(tables.Device, device).online = False


@seed
def stay(services: Services, device: str) -> None:
    """A device is there, for a while."""
    with services.database.write() as session:
        row = session.get_one(tables.Device, device)
        row.online, row.last_seen = True, services.now() + 3600


_VERSIONS = (("2.0.0", "a" * 64), ("2.1.0", "b" * 64))
_TARGETS = (
    ("cpu-x86-64-vnni", "int8", 0.962, 410_000),
    ("cpu-x86-64", "float32", 0.964, 1_630_000),
)


def _release(services: Services, version: str, trained_on: str) -> Release:
    builder = ReleaseBuilder("digits", version)
    recipe = {
        "version": 1,
        "tools": {"onnxruntime": "1.20.0", "edgeml": "0.1.0"},
        "inputs": {
            "model": "sha256:" + trained_on,
            "calibration": "c" * 64,
            "evaluation": "e" * 64,
        },
        "variants": [],
    }
    runtimes = (RuntimeRequirement(name="onnxruntime", versions=">=1.17"),)
    for target, precision, _, size in _TARGETS:
        builder.add_variant(
            target=target,
            rank=0,
            requires=Requirements(cpu_features=("avx2",), runtimes=runtimes),
            format="onnx",
            precision=precision,
            quantization="u8s8" if precision == "int8" else "",
            verification=Verification.ARTIFACT_EXECUTED,
            files={
                "model": ("model.onnx", version.encode() + precision.encode() * (size // 8)),
                "recipe": ("recipe.json", msgspec.json.encode(recipe)),
            },
        )
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout.create(Path(folder) / "release")
        made = builder.write(layout)
        report = REPORT.format(version=version).encode()
        write_evidence(layout, made, list(_converted(made, version)), {"report.html": report})
        services.registry.prepare()
        _push(services, layout, made)
    releases.register(services, OPERATOR, "digits", made.digest)
    return made


def _push(services: Services, layout: Layout, made: Release) -> None:
    """Put a layout into the registry as a push does: blobs, then manifests, the evidence last."""
    for blob in (layout.folder / "blobs" / "sha256").iterdir():
        services.registry.blobs.put_file(blob)
    entries = {entry.digest: entry for entry in layout.index().manifests}
    for digest in [v.digest for v in made.variants] + [*entries]:
        data = layout.blobs.read(digest, 1 << 20)
        media_type = entries[digest].media_type if digest in entries else oci.MANIFEST
        services.registry.put_manifest("digits", digest, media_type, data)


def _converted(made: Release, version: str) -> Iterator[Evidence]:
    loss = 0.0 if version == "2.0.0" else 0.021
    by_target = {variant.target: variant for variant in made.variants}
    for target, _, share, _ in _TARGETS:
        value = share - loss
        yield Evidence(
            stage="convert",
            model="digits",
            release=made.digest,
            variant=by_target[target].digest,
            target=target,
            runtime="onnxruntime",
            runtime_version="1.20.0",
            verification=Verification.ARTIFACT_EXECUTED,
            accuracy=Accuracy(
                metric="accuracy", value=value, low=value - 0.009, high=value + 0.009,
                confidence=0.95, n=1797,
            ),
            latency=Latency(p50_ms=1.1, p95_ms=1.4, p99_ms=1.9, n=500),
            memory_bytes=41_000_000,
        )  # fmt: skip


def _runs(services: Services, device: str, old: Release, new: Release) -> None:
    """It took the old release, tried the new one and went back, as its records say."""
    steps = [
        (old, Phase.DOWNLOADING, ""), (old, Phase.TESTING, ""), (old, Phase.COMMITTED, ""),
        (new, Phase.DOWNLOADING, ""), (new, Phase.TRIAL, ""), (new, Phase.ROLLED_BACK, REASON),
    ]  # fmt: skip
    now = services.now()
    with services.database.write() as session:
        for number, (release, phase, reason) in enumerate(steps):
            wanted = DesiredModel(
                release=release.digest,
                variant=release.variants[0].digest,
                release_version=release.version,
                rollout=f"digits-{release.version}-ab12cd",
                attempt=1,
                nonce="n",
            )
            running = wanted if release is old and phase is Phase.COMMITTED else None
            said = reported(wanted, phase, running, reason)
            if release is new:
                said = msgspec.structs.replace(
                    said, running_release=old.digest, running_version=old.version
                )
            at = now - 3000 + number * 300
            body = encode(StateRecord(model="digits", state=said))
            session.add(_record(device, number, "state", new.digest, at, body))
        session.merge(
            tables.ReportedModel(
                device=device, model="digits", stream="s", at=now,
                **{
                    name: str(value) if name == "phase" else value
                    for name, value in msgspec.structs.asdict(said).items()
                },
            )
        )  # fmt: skip
        session.merge(
            tables.DesiredModel(
                device=device, model="digits", release=new.digest,
                variant=new.variants[0].digest, release_version=new.version,
                rollout="digits-2.1.0-ab12cd", attempt=1, nonce="n",
                trial=encode(TrialPolicy()).decode(),
            )
        )  # fmt: skip


def _record(
    device: str, number: int, kind: str, release: str, at: float, body: bytes
) -> tables.Record:
    return tables.Record(
        device=device, stream=f"seeded-{kind}", seq=number, kind=kind, model="digits",
        release=release, at=at, received_at=at, body=body,
    )  # fmt: skip


def _measures(services: Services, device: str, old: Release, new: Release) -> None:
    now = services.now()
    with services.database.write() as session:
        for number in range(WINDOWS):
            window = Window(
                model="digits", source="belt", release=old.digest,
                variant=old.variants[0].digest, release_version="2.0.0", runtime="onnxruntime",
                seconds=5.0, accepted=50, replaced=0, inferred=50 - number % 3,
                errors=number % 3, confident=47, duty=1.0 if number < WINDOWS // 2 else 0.8,
                latency={"inference": Sketch.of([1.0 + 0.01 * (number % 9)] * 40 + [2.0] * 10)},
                classes={"3": 20 + number % 3, "8": 12, "7": 15 if number < 40 else 4,
                         "1": 1 if number < 40 else 12},
                metrics={"temperature_c": Measure(n=5, sum=260 + 2.5 * number, min=52, max=90)},
            )  # fmt: skip
            at = now - (WINDOWS - number) * 5
            body = encode(window)
            session.add(_record(device, number, "telemetry", old.digest, at, body))
        ledger.keep(
            session,
            device,
            [LedgerRecord(ledger="l", entries=tuple(_spent()))],
            now,
        )
        session.add(_trial(device, new, now))


def _spent() -> Iterator[LedgerEntry]:
    for cause, received in ((Cause.FULL, 412_000), (Cause.DELTA, 31_000), (Cause.TELEMETRY, 900)):
        yield LedgerEntry(
            month="2026-11", rollout="digits-2.0.0-ab12cd", cause=cause, sent=2100,
            received=received,
        )  # fmt: skip


def _trial(device: str, new: Release, now: float) -> tables.Evidence:
    record = Evidence(
        stage="trial",
        model="digits",
        release=new.digest,
        variant=new.variants[0].digest,
        target="cpu-x86-64-vnni",
        runtime="onnxruntime",
        runtime_version="1.20.0",
        verification=Verification.DEVICE_EXECUTED,
        device=device,
        conditions=Conditions(hardware_class="x86_64-avx512_vnni-2c"),
        golden=GoldenResult(samples=64, max_difference=0.0, tolerance=0.0),
        latency=Latency(p50_ms=1.2, p95_ms=1.6, p99_ms=2.2, n=200),
        live=LiveResult(seconds=30.0, inferred=60, confident=2),
        memory_bytes=52_000_000,
        gates=(
            GateResult(name="golden.outputs", result=Verdict.PASS, reason="equal on 64 samples"),
            GateResult(
                name="live.confident_share",
                result=Verdict.FAIL,
                reason=REASON,
                value=2 / 60,
                low=0.01,
                high=0.11,
                bound=0.77,
                baseline=0.96,
                n=60,
            ),
        ),
    )
    return tables.Evidence(
        device=device, model="digits", release=new.digest, variant=new.variants[0].digest,
        rollout="digits-2.1.0-ab12cd", stage="trial", nonce="n", received_at=now,
        document=encode(record), signed_batch=None,
    )  # fmt: skip


def _answers(services: Services, device: str) -> None:
    """What it brought: a picture, and lines of a log that try to be more than text."""
    picture = np.tile(np.linspace(20, 235, 320, dtype=np.uint8), (200, 1))
    cv2.putText(picture, "belt 3", (90, 115), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 255, 3)
    _, jpeg = cv2.imencode(".jpg", picture)
    brought = {
        CommandKind.SNAPSHOT: ("image/jpeg", True, base64.b64encode(jpeg.tobytes()).decode()),
        CommandKind.LOG_TAIL: ("text/plain", False, f"belt: 10 frames a second\n{HOSTILE}"),
    }
    for kind, (media_type, is_base64, content) in brought.items():
        asked = commands.create(services, OPERATOR, device, kind)
        result = CommandResult(
            command=asked["id"], kind=kind, status=CommandStatus.DONE, seconds=0.4,
            media_type=media_type, base64=is_base64, content=content,
        )  # fmt: skip
        with services.database.write() as session:
            commands.keep(services, session, device, [result])
