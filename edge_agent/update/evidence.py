"""What an update tells the fleet about a release on this device: the evidence records. Pure."""

import msgspec

from cloud_sync.evidence import (
    Conditions,
    Evidence,
    GateResult,
    Latency,
    LiveResult,
    Raced,
    Verdict,
    combined,
)
from cloud_sync.messages import DesiredModel
from cloud_sync.release import Variant
from cloud_sync.update_machine import Baseline
from edge_agent.execution import Execution, verification
from edge_agent.statistics import Live
from edge_agent.testing import TestResult
from hardware.capabilities import Capabilities


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence is about, and where it was measured."""

    model: str
    desired: DesiredModel
    variant: Variant
    execution: Execution
    device: str
    capabilities: Capabilities
    version: tuple[int, int]


def raced(execution: Execution, result: TestResult) -> Raced:
    """A test as one of a race."""
    verdict = combined(result.gates)
    return Raced(
        runtime=execution.runtime,
        runtime_version=execution.version,
        provider=execution.provider,
        threads=execution.threads,
        result=verdict,
        latency=result.latency,
        memory_bytes=result.memory_bytes,
        reason="" if verdict is Verdict.PASS else reasons(result.gates, verdict),
    )


def reasons(gates: tuple[GateResult, ...], verdict: Verdict) -> str:
    """What the gates with that verdict say."""
    return "; ".join(gate.reason for gate in gates if gate.result is verdict)


def of_test(subject: Subject, result: TestResult, race: tuple[Raced, ...]) -> Evidence:
    """The evidence of a golden replay, and of the race that it was a part of."""
    return msgspec.structs.replace(
        _evidence(subject, "test"),
        race=race,
        golden=result.golden,
        latency=result.latency,
        memory_bytes=result.memory_bytes,
        placement=result.placement,
        gates=result.gates,
    )


def of_trial(
    subject: Subject,
    result: LiveResult,
    gates: tuple[GateResult, ...],
    placement: dict[str, int],
) -> Evidence:
    """The evidence of a trial."""
    return msgspec.structs.replace(
        _evidence(subject, "trial"),
        live=result,
        latency=result.latency,
        placement=placement,
        gates=gates,
    )


def live_result(live: Live, baseline: Baseline, seconds: float) -> LiveResult:
    """What a release did in `seconds` of its trial, beside what the one before did."""
    p95 = baseline.latency_p95_ms
    before = Latency(p50_ms=p95, p95_ms=p95, p99_ms=p95, n=baseline.inferred) if p95 else None
    return LiveResult(
        seconds=seconds,
        inferred=live.inferred,
        empty=live.empty,
        errors=live.errors,
        confident=live.confident,
        latency=live.latency(),
        baseline_release=baseline.release,
        baseline_inferred=baseline.inferred,
        baseline_confident=baseline.confident,
        baseline_latency=before,
    )


def as_baseline(version: str, live: Live) -> Baseline:
    """What a release did lately, for the next one to be compared with."""
    inferred, confident = live.recent()
    latency = live.latency()
    return Baseline(
        release=version,
        inferred=inferred,
        confident=confident,
        latency_p95_ms=latency.p95_ms if latency else 0.0,
    )


def _evidence(subject: Subject, stage: str) -> Evidence:
    versions = {r.name: r.version for r in subject.capabilities.runtimes}
    from hardware.probes import instruction_set

    epoch, counter = subject.version
    return Evidence(
        stage=stage,
        model=subject.model,
        release=subject.desired.release,
        variant=subject.desired.variant,
        target=subject.variant.target,
        runtime=subject.execution.runtime,
        runtime_version=subject.execution.version,
        verification=verification(subject.execution, subject.capabilities),
        device=subject.device,
        desired_epoch=epoch,
        desired_counter=counter,
        nonce=subject.desired.nonce,
        memory_bytes=0,  # not measured; a fleet that is older than this agent reads no null here
        load_ms=0.0,
        conditions=Conditions(
            hardware_class=subject.capabilities.hardware_class,
            cpu=subject.capabilities.cpu.model,
            instruction_set=instruction_set(subject.capabilities),
            threads=subject.execution.threads,
            software=versions,
        ),
    )
