"""What a simulated device measures: drawn from its hardware class and its own randomness. Pure.

Golden outputs are equal or, on a device that fails its test, are not; latency is log-normal with
the class's median and tail; the share of confident results is binomial about the class's. The
gates are named and decided as the agent does it, so that the fleet meets what real devices send.
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
from fleet.simulator.population import Fault, Member

GOLDEN_SAMPLES = 16
SLOWER = 5.0
_Z95, _Z99 = 1.645, 2.326
_SKETCHED = 20


class Did(msgspec.Struct, frozen=True, kw_only=True):
    """What a release does on a device; the next one is compared with it in its trial."""

    version: str = ""
    inferred: int = 0
    confident: int = 0
    latency: Latency | None = None


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
    member: Member, asked: Asked, before: Did, fps: float, chance: random.Random
) -> tuple[Evidence, Did]:
    """The evidence of a trial beside what ran before, and what the release does from then on.

    A device that is slow with a new release is so in its trial alone: the next is slow beside it.
    """
    policy = asked.desired.trial
    seconds = trial_seconds(policy, fps)
    inferred = round(seconds * fps)
    confident = sum(chance.random() < member.kind.confident for _ in range(min(inferred, 1000)))
    confident = confident * inferred // max(1, min(inferred, 1000))
    slower = SLOWER if member.fault is Fault.SLOW else 1.0
    measured = latency(member, inferred, slower=slower)
    live = LiveResult(
        seconds=seconds,
        inferred=inferred,
        confident=confident,
        latency=measured,
        baseline_release=before.version,
        baseline_inferred=before.inferred,
        baseline_confident=before.confident,
        baseline_latency=before.latency,
    )
    gates = (_errors(live, policy), _confident(live, policy), _latency(live, policy))
    evidence = msgspec.structs.replace(
        _evidence(member, asked, "trial"), live=live, latency=measured, gates=gates
    )
    did = Did(
        version=asked.desired.release_version,
        inferred=inferred,
        confident=confident,
        latency=latency(member, inferred),
    )
    return evidence, did


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


def _errors(live: LiveResult, policy: TrialPolicy) -> GateResult:
    enough = live.inferred >= policy.min_inferred
    return GateResult(
        name="live.error_rate",
        result=Verdict.PASS if enough else Verdict.UNDECIDED,
        value=0.0,
        bound=policy.max_error_rate,
        n=live.inferred,
        n_needed=None if enough else policy.min_inferred,
        reason=f"0 of {live.inferred} inferences failed; {policy.max_error_rate:.1%} are allowed",
    )


def _confident(live: LiveResult, policy: TrialPolicy) -> GateResult:
    share = live.confident / live.inferred if live.inferred else 0.0
    name, said = "live.confident_share", f"{share:.0%} of {live.inferred} results were confident"
    if not live.baseline_inferred:
        return GateResult(
            name=name,
            result=Verdict.PASS,
            value=share,
            n=live.inferred,
            reason=f"{said}; no release before it to compare with",
        )
    baseline = live.baseline_confident / live.baseline_inferred
    bound = baseline * policy.min_confident_ratio
    return GateResult(
        name=name,
        result=Verdict.PASS if share >= bound else Verdict.FAIL,
        value=share,
        baseline=baseline,
        bound=bound,
        n=live.inferred,
        reason=f"{said}, the release before had {baseline:.0%}; at least {bound:.0%} is wanted",
    )


def _latency(live: LiveResult, policy: TrialPolicy) -> GateResult:
    now, before = live.latency, live.baseline_latency
    assert now is not None
    name, said = "live.latency_p95", f"p95 is {now.p95_ms:.2f} ms"
    if before is None:
        return GateResult(
            name=name,
            result=Verdict.PASS,
            value=now.p95_ms,
            n=now.n,
            unit="ms",
            reason=f"{said}; no release before it to compare with",
        )
    bound = before.p95_ms * policy.max_latency_p95_ratio + policy.latency_slack_ms
    return GateResult(
        name=name,
        result=Verdict.PASS if now.p95_ms <= bound else Verdict.FAIL,
        value=now.p95_ms,
        baseline=before.p95_ms,
        bound=bound,
        n=now.n,
        unit="ms",
        reason=f"{said}, the release before had {before.p95_ms:.2f} ms; "
        f"at most {bound:.2f} ms is wanted",
    )
