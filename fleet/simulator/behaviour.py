"""What a simulated device measures: drawn from its hardware class and its own randomness. Pure.

Golden outputs are equal or, on a device that fails its test, are not; latency is log-normal with
the class's median and tail; the share of confident results is binomial about the class's. The
trial's gates are the agent's own (`cloud_sync.trial`), so that the fleet meets what devices send.
"""

import math
import random

import msgspec

from cloud_sync.evidence import (
    Conditions,
    Evidence,
    GateResult,
    GoldenResult,
    Latency,
    LiveResult,
    Verdict,
    Verification,
    combined,
)
from cloud_sync.messages import DesiredModel, Measure, TrialPolicy, Window
from cloud_sync.release import Variant
from cloud_sync.sketch import Sketch
from cloud_sync.trial import judge
from cloud_sync.update_machine import Baseline
from fleet.simulator.population import Fault, Member

GOLDEN_SAMPLES = 16
SLOWER = 5.0
_Z95, _Z99 = 1.645, 2.326
_SKETCHED = 20
_DRAWN = 1000


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What evidence is about: who was asked by which desired state for what."""

    model: str
    desired: DesiredModel
    variant: Variant
    epoch: int
    counter: int


def latency(member: Member, n: int, *, slower: float = 1.0) -> Latency:
    """Percentiles of one inference on this device."""
    kind = member.kind
    median = kind.latency_ms * member.pace * slower
    sigma = math.log(kind.tail) / _Z95
    return Latency(
        p50_ms=median,
        p95_ms=median * math.exp(_Z95 * sigma),
        p99_ms=median * math.exp(_Z99 * sigma),
        n=n,
    )


def test_evidence(member: Member, asked: Asked, chance: random.Random) -> Evidence:
    """The evidence of a golden replay; it fails on a device that is to fail its test."""
    fails = member.fault is Fault.FAILS_TEST
    difference = chance.uniform(0.5, 2.0) if fails else 0.0
    gate = GateResult(
        name="golden.outputs",
        result=Verdict.FAIL if fails else Verdict.PASS,
        value=difference,
        bound=0.0,
        n=GOLDEN_SAMPLES,
        reason="the largest difference from the outputs recorded at the converter (simulated) "
        f"is {difference:.3g}, 0 is allowed",
    )
    return msgspec.structs.replace(
        _evidence(member, asked, "test"),
        golden=GoldenResult(
            samples=GOLDEN_SAMPLES, max_difference=difference, tolerance=0.0, recorded_for="same"
        ),
        latency=latency(member, GOLDEN_SAMPLES),
        memory_bytes=round(member.kind.memory_mb * chance.uniform(0.95, 1.05) * 1e6),
        gates=(gate,),
    )


def trial_seconds(policy: TrialPolicy, fps: float) -> float:
    """How long a trial takes with so many frames a second, its time-out at most."""
    return min(max(policy.soak_s, policy.min_inferred / fps), policy.timeout_s)


def trial_evidence(
    member: Member, asked: Asked, before: Baseline, fps: float, chance: random.Random
) -> tuple[Evidence, Baseline, float]:
    """The evidence of a trial, what the release does from then on, and the trial's seconds.

    It lasts until its gates are decided, as on the agent; what is undecided at its time-out fails.
    A device that is slow with a new release is so in its trial alone: the next is slow beside it.
    """
    policy = asked.desired.trial
    seconds, inferred, confident = trial_seconds(policy, fps), 0, 0.0
    slower = SLOWER if member.fault is Fault.SLOW else 1.0
    while True:
        more = round(seconds * fps) - inferred
        drawn = min(more, _DRAWN)
        sure = sum(chance.random() < member.kind.confident for _ in range(drawn))
        confident += sure * more / max(1, drawn)
        inferred += more
        measured = latency(member, inferred, slower=slower)
        live = LiveResult(
            seconds=seconds,
            inferred=inferred,
            confident=round(confident),
            latency=measured,
            baseline_release=before.release,
            baseline_inferred=before.inferred,
            baseline_confident=before.confident,
            baseline_latency=_before(before),
        )
        gates = judge(live, policy)
        if combined(gates) is not Verdict.UNDECIDED or seconds >= policy.timeout_s:
            break
        seconds = min(2 * seconds + 1.0, policy.timeout_s)
    evidence = msgspec.structs.replace(
        _evidence(member, asked, "trial"), live=live, latency=measured, gates=gates
    )
    did = Baseline(
        release=asked.desired.release_version,
        inferred=inferred,
        confident=round(confident),
        latency_p95_ms=latency(member, inferred).p95_ms,
    )
    return evidence, did, seconds


def _before(baseline: Baseline) -> Latency | None:
    p95 = baseline.latency_p95_ms
    return Latency(p50_ms=p95, p95_ms=p95, p99_ms=p95, n=baseline.inferred) if p95 else None


def failing(evidence: Evidence) -> str:
    """What the gates say that did not pass; empty where all did."""
    if combined(evidence.gates) is Verdict.PASS:
        return ""
    return "; ".join(gate.reason for gate in evidence.gates if gate.result is not Verdict.PASS)


def window(member: Member, running: DesiredModel, model: str, seconds: float, fps: float) -> Window:
    """Telemetry of some seconds in which all went well."""
    frames = max(1, round(seconds * fps))
    kind = member.kind
    warm, measured = kind.temperature_c, latency(member, frames)
    values = [measured.p50_ms] * (_SKETCHED - 1) + [measured.p95_ms]
    return Window(
        model=model,
        source="simulated",
        release=running.release,
        variant=running.variant,
        release_version=running.release_version,
        runtime=next(iter(sorted(kind.runtimes)), ""),
        seconds=seconds,
        accepted=frames,
        replaced=0,
        inferred=frames,
        confident=round(frames * kind.confident),
        latency={"inference": Sketch.of(values)},
        rss_bytes=round(kind.memory_mb * 1e6),
        energy_j=None if kind.joules is None else kind.joules * frames,
        metrics={}
        if warm is None
        else {"temperature_c": Measure(n=1, sum=warm, min=warm, max=warm)},
    )


def _evidence(member: Member, asked: Asked, stage: str) -> Evidence:
    runtime, version = next(iter(sorted(member.kind.runtimes.items())), ("", ""))
    return Evidence(
        stage=stage,
        model=asked.model,
        release=asked.desired.release,
        variant=asked.desired.variant,
        target=asked.variant.target,
        runtime=runtime,
        runtime_version=version,
        verification=Verification.DEVICE_EXECUTED,
        device=member.device,
        desired_epoch=asked.epoch,
        desired_counter=asked.counter,
        nonce=asked.desired.nonce,
        conditions=Conditions(
            hardware_class=member.kind.name,
            cpu="simulated",
            threads=member.kind.cores,
            software=dict(member.kind.runtimes),
        ),
    )
