"""`edgeml agent bench`: how fast a release is on this machine, in every way that it can run.

Each way (a runtime with a number of threads) runs in a child process of its own, as an update's
test does: golden outputs, percentiles, memory. `minutes` then lets the quickest run on, to see
what heat makes of it. What comes out is evidence, signed where the device is enrolled.
"""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.evidence import Conditions, Evidence, Latency, Raced, Verdict
from cloud_sync.messages import Batch, Record, RecordKind, encode
from cloud_sync.release import write_atomically
from edge_agent.commands.local import LocalRelease, Way
from edge_agent.execution import verification, winner
from edge_agent.memory import rss_bytes
from edge_agent.testing import TestRequest, TestResult, run_child
from edge_agent.trust.identity import Identity
from edge_agent.update.evidence import raced
from edgeml.errors import DeviceError
from hardware.capabilities import Capabilities
from hardware.probes import boot_id, clock_share, hottest, instruction_set

SOAK_WINDOW_S = 10.0
STAGE = "bench"


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """One window of running on: its end in seconds, latencies in milliseconds, and the heat."""

    at_s: float
    p50_ms: float
    p99_ms: float
    inferences: int
    celsius: float | None
    clock_share: float
    rss_bytes: int


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the release: the name of its variant, and what its race measured."""

    variant: str
    raced: Raced


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured; `signed` is the envelope of an enrolled device, else empty.

    `evidence` is of the variant that was the quickest, its race of that variant alone.
    """

    release: str
    capabilities: Capabilities
    measured: tuple[Measured, ...]
    evidence: Evidence
    soak: tuple[Soak, ...] = ()
    signed: str = ""


Say = Callable[[str], None]


def run(local: LocalRelease, *, say: Say, stop: threading.Event, minutes: float = 0.0) -> Report:
    """Measure a release here.

    Args:
        local: the release, with the ways to run it.
        say: told what is going on.
        stop: set to end it; what was measured until then counts.
        minutes: how long the quickest way runs on.

    Raises:
        DeviceError: nothing could be measured.
    """
    ran: list[tuple[Way, TestResult]] = []
    race: list[Raced] = []
    for number, way in enumerate(local.ways, 1):
        say(f"{number} of {len(local.ways)}: {way.variant.name}, {way.execution}")
        result = run_child(_request(local, way), stop)
        if result is None:
            break
        ran.append((way, result))
        race.append(raced(way.execution, result))
    if not race:
        raise DeviceError(f"Nothing of {local.release.name} was measured.", why="It was stopped.")
    best = winner(race)
    if ran[best][1].latency is None:
        raise DeviceError(f"{local.release.name} does not run here.", why=ran[best][1].error)
    race[best] = msgspec.structs.replace(race[best], chosen=True)
    way, result = ran[best]
    soak: tuple[Soak, ...] = ()
    if minutes and not stop.is_set():
        say(f"{way.variant.name}, {way.execution} for {minutes:g} minutes")
        soak = tuple(_soak(local, way, minutes * 60, say, stop))
    measured = tuple(
        Measured(variant=other.variant.name, raced=each)
        for (other, _), each in zip(ran, race, strict=True)
    )
    its_own = tuple(
        each for (other, _), each in zip(ran, race, strict=True) if other.variant is way.variant
    )
    return Report(
        release=local.release.name,
        capabilities=local.capabilities,
        measured=measured,
        evidence=_evidence(local, way, result, its_own),
        soak=soak,
    )


def write(report: Report, path: Path, identity: Identity | None) -> tuple[Report, Batch | None]:
    """Write the report as JSON, signed where the device is enrolled.

    Returns:
        The report as written, and the batch that can be sent.
    """
    batch = None
    if identity is not None:
        from cloud_sync.trust import PayloadType, sign

        device = identity.config.device
        evidence = msgspec.structs.replace(report.evidence, device=device)
        # A stream of its own: the agent's outbox is the agent's alone.
        batch = Batch(
            device=device,
            stream=f"{STAGE}-{uuid.uuid4().hex}",
            boot_id=boot_id(),
            records=(
                Record(
                    seq=1,
                    kind=RecordKind.EVIDENCE,
                    at=time.time(),
                    monotonic=time.monotonic(),
                    body=msgspec.Raw(encode(evidence)),
                ),
            ),
        )
        signed = sign(encode(batch), PayloadType.BATCH, identity.key).decode()
        report = msgspec.structs.replace(report, evidence=evidence, signed=signed)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(report), indent=2))
    return report, batch


def send(batch: Batch, identity: Identity) -> None:
    """Send what was signed to the fleet.

    Raises:
        RemoteError: the fleet cannot be reached, or did not store it.
        TrustError: the fleet does not know this device.
    """
    from cloud_sync.device_api import DeviceClient

    client = DeviceClient(identity.config.fleet_url, identity.config.device, identity.key)
    try:
        client.send(batch)
    finally:
        client.close()


def lines(report: Report) -> list[str]:
    """The report for people."""
    evidence = report.evidence
    width = max(len("variant"), *(len(each.variant) for each in report.measured)) + 2
    said = [
        f"{report.release}, {evidence.target}, on {evidence.conditions.cpu or 'this machine'}",
        (
            f"{'  variant':<{width + 2}}{'runtime':<30}{'threads':>8}{'p50 ms':>9}{'p95 ms':>9}"
            f"{'p99 ms':>9}{'MB':>7}  outputs"
        ),
    ]
    said += [_row(each, width) for each in report.measured]
    if report.soak:
        first, last = report.soak[0], report.soak[-1]
        said.append(
            f"after {last.at_s:.0f} s: p50 {first.p50_ms:.2f} -> {last.p50_ms:.2f} ms, "
            f"p99 {first.p99_ms:.2f} -> {last.p99_ms:.2f} ms, "
            f"{_warm(first)} -> {_warm(last)}, clock {last.clock_share:.0%}, "
            f"{last.rss_bytes >> 20} MB"
        )
    return said


def _row(measured: Measured, width: int) -> str:
    each = measured.raced
    name = " ".join(filter(None, (each.runtime, each.runtime_version, each.provider)))
    mark = "* " if each.chosen else "  "
    found = each.latency
    times = (
        f"{found.p50_ms:>9.2f}{found.p95_ms:>9.2f}{found.p99_ms:>9.2f}" if found else f"{'-':>27}"
    )
    said = {Verdict.PASS: "as proven"}.get(each.result, f"{each.result}: {each.reason}")
    return (
        f"{mark}{measured.variant:<{width}}{name:<30}{each.threads:>8}{times}"
        f"{each.memory_bytes >> 20:>7}  {said}"
    )


def _warm(soak: Soak) -> str:
    return "no thermometer" if soak.celsius is None else f"{soak.celsius:.0f} \N{DEGREE SIGN}C"


def _request(local: LocalRelease, way: Way) -> TestRequest:
    def path(role: str) -> str:
        found = way.variant.find(role)
        return str(local.store.blobs.path(found.digest)) if found else ""

    return TestRequest(
        execution=way.execution,
        model=path("model"),
        pipeline=path("pipeline"),
        golden=path("golden"),
        recorded=path("recorded"),
    )


def _soak(
    local: LocalRelease, way: Way, seconds: float, say: Say, stop: threading.Event
) -> list[Soak]:
    """Infer without a pause, and look at the figures every few seconds."""
    from cloud_sync.golden import decode_golden
    from hardware.pipeline import parse
    from hardware.runtimes import SessionOptions, open_session

    request, execution = _request(local, way), way.execution
    options = SessionOptions(threads=execution.threads, provider=execution.provider)
    session = open_session(execution.runtime, Path(request.model), options)
    try:
        golden = decode_golden(Path(request.golden).read_bytes())
        sample = next(iter(golden.samples()))
        prepared: Sequence[Any] | None = sample
        if request.pipeline:
            runner = parse(Path(request.pipeline).read_bytes()).runner(session.inputs)
            prepared = runner.prepare(sample[0])
        tensors = [
            spec.tensor(array).copy()
            for spec, array in zip(session.inputs, prepared or (), strict=True)
        ]
        found = []
        began = time.monotonic()
        while (done := time.monotonic() - began) < seconds and not stop.is_set():
            until = began + min(seconds, done + SOAK_WINDOW_S)
            times = []
            while (begun := time.perf_counter()) and time.monotonic() < until:
                session.run(tensors)
                times.append((time.perf_counter() - begun) * 1000)
                if stop.is_set():
                    break
            found.append(_window(time.monotonic() - began, sorted(times)))
            say(f"{found[-1].at_s:.0f} s: p50 {found[-1].p50_ms:.2f} ms, {_warm(found[-1])}")
        return found
    finally:
        session.close()


def _window(at_s: float, times: list[float]) -> Soak:
    warmest = hottest()
    return Soak(
        at_s=round(at_s, 1),
        p50_ms=times[len(times) // 2],
        p99_ms=times[min(len(times) - 1, len(times) * 99 // 100)],
        inferences=len(times),
        celsius=warmest.celsius if warmest else None,
        clock_share=clock_share(),
        rss_bytes=rss_bytes(),
    )


def _evidence(
    local: LocalRelease, way: Way, result: TestResult, race: tuple[Raced, ...]
) -> Evidence:
    """What can be said of the variant here; its gates decide no rollout, so none are named."""
    capabilities, execution = local.capabilities, way.execution
    latency: Latency | None = result.latency
    return Evidence(
        stage=STAGE,
        model=local.release.model,
        release=local.release.digest,
        variant=way.variant.digest,
        target=way.variant.target,
        runtime=execution.runtime,
        runtime_version=execution.version,
        verification=verification(execution, capabilities),
        conditions=Conditions(
            hardware_class=capabilities.hardware_class,
            cpu=capabilities.cpu.model or capabilities.board,
            instruction_set=instruction_set(capabilities),
            threads=execution.threads,
            software={found.name: found.version for found in capabilities.runtimes},
        ),
        golden=result.golden,
        latency=latency,
        memory_bytes=result.memory_bytes,
        placement=result.placement,
        race=race,
    )
