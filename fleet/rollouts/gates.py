"""The gates of a wave, over what its devices have shown.

They are decided for each hardware class by itself. More devices are not more samples: devices
are counted for failures, latency and live behaviour, and golden-set figures are never pooled:
a class is as good as its worst device.
"""

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts.observe import DeviceObservation
from fleet.rollouts.policy import Policy

FAILURES = "devices.failed"
LATENCY = "live.latency_p95"  # the agent's gate, which carries p95 and that of the release before
_SEVERITY = {Verdict.FAIL: 0, Verdict.UNDECIDED: 1, Verdict.PASS: 2}
_MAX_NAMED = 3


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A device that counts as failed, and why."""

    device: DeviceObservation
    why: str


def is_done(device: DeviceObservation, release: str) -> bool:
    """Whether the device committed and has shown evidence for it.

    Nothing more is asked of one that ran this very release before.
    """
    return device.phase is Phase.COMMITTED and bool(device.gates or device.previous == release)


def is_refusing(device: DeviceObservation) -> bool:
    """Whether the device refused what the plan still resolves for it.

    It is left out, as if nothing fitted it, until the plan gives it another variant: a refusal
    is no failure, and asking the same again would only be refused again.
    """
    return device.phase is Phase.REFUSED and device.variant in {"", device.assigned_variant}


def failure(
    device: DeviceObservation, release: str, policy: Policy, now: float, up_since: float = 0.0
) -> Failure | None:
    """Why a device counts as failed, if it does.

    Its silence counts only while the fleet listened: what it said while the fleet was down is in
    its outbox. So one that was given the release before `up_since` must be heard from first.
    """
    if device.phase is Phase.ROLLED_BACK:
        return Failure(device=device, why=f"rolled back: {device.reason or 'it gave no reason'}")
    if device.phase is Phase.COMMITTED:
        for gate in device.gates:
            if gate.result is Verdict.FAIL:
                return Failure(
                    device=device, why=f"committed, but {gate.name} fails: {gate.reason}"
                )
        slow = _latency_over(device, policy)
        if slow:
            return Failure(device=device, why=f"is too slow: {slow}")
    if device.phase is Phase.REFUSED or device.assigned_at is None:
        return None
    if device.assigned_at < up_since and (device.last_seen or 0.0) < up_since:
        return None
    waited = now - max(device.assigned_at, up_since)
    if waited <= policy.limits.device_timeout_s or is_done(device, release):
        return None
    lack = "sent no evidence" if device.phase is Phase.COMMITTED else "has not committed"
    return Failure(device=device, why=f"{lack} within {policy.limits.device_timeout_s:.0f} s")


def wave_gates(
    wave: Sequence[DeviceObservation],
    release: str,
    policy: Policy,
    now: float,
    up_since: float = 0.0,
) -> tuple[GateResult, ...]:
    """The gates of a wave's devices: failures over all, then evidence for each class.

    Failures within the policy's limit are tolerated: those devices have their say in the first
    gate only. Above it, their figures are shown too, since they say why the rollout stops.
    """
    found = [f for device in wave if (f := failure(device, release, policy, now, up_since))]
    gates = [_failures(wave, found, release, policy)]
    tolerated = gates[0].result is not Verdict.FAIL
    failed = {f.device.device for f in found}
    classes: dict[str, list[DeviceObservation]] = defaultdict(list)
    for device in wave:
        classes[device.hardware_class].append(device)
    for name, devices in sorted(classes.items()):
        good = [d for d in devices if d.device not in failed]
        gates.append(_evidence(name, devices, good, release, policy))
        counted = good if tolerated else devices
        gates += _device_gates(name, counted)
        gates += _latency(name, counted, policy)
    return tuple(gates)


def _failures(
    wave: Sequence[DeviceObservation], found: list[Failure], release: str, policy: Policy
) -> GateResult:
    limit = policy.limits.max_failures
    if len(found) > limit:
        result = Verdict.FAIL
    else:
        done = sum(is_done(d, release) for d in wave)
        result = Verdict.PASS if done + len(found) >= len(wave) else Verdict.UNDECIDED
    named = [f"{f.device.device} {f.why.rstrip('.')}" for f in found[:_MAX_NAMED]]
    if len(found) > _MAX_NAMED:
        named.append(f"and {len(found) - _MAX_NAMED} more")
    more = f" ({'; '.join(named)})" if named else ""
    allowed = f"{limit} may" if limit else "none may"
    return GateResult(
        name=FAILURES,
        result=result,
        value=float(len(found)),
        bound=float(limit),
        n=len(wave),
        n_needed=len(wave) if result is Verdict.UNDECIDED else None,
        unit="devices",
        reason=f"{len(found)} of {count(len(wave))} failed, {allowed}{more}",
    )


def _evidence(
    name: str,
    devices: list[DeviceObservation],
    good: list[DeviceObservation],
    release: str,
    policy: Policy,
) -> GateResult:
    done = sum(is_done(d, release) for d in good)
    needed = min(policy.gates.min_evidence, len(devices))
    if done >= needed:
        result = Verdict.PASS
    else:
        result = Verdict.UNDECIDED if len(good) >= needed else Verdict.FAIL
    return GateResult(
        name=f"{name}: committed",
        result=result,
        value=float(done),
        bound=float(needed),
        n=len(devices),
        n_needed=needed if result is Verdict.UNDECIDED else None,
        unit="devices",
        reason=f"{done} of {count(len(devices))} of {name} committed with evidence, "
        f"{needed} must" + ("" if len(good) >= needed else " and no more can"),
    )


def _device_gates(name: str, devices: list[DeviceObservation]) -> list[GateResult]:
    """For each gate that devices decided themselves, the worst of this class."""
    shown: dict[str, list[tuple[GateResult, str]]] = defaultdict(list)
    for device in devices:
        for gate in device.gates:
            shown[gate.name].append((gate, device.device))
    results = []
    for gate_name, gates in sorted(shown.items()):
        gate, worst = min(gates, key=lambda found: (_SEVERITY[found[0].result], _margin(found[0])))
        among = f"{worst}, the closest of {len(gates)}" if len(gates) > 1 else worst
        results.append(
            msgspec.structs.replace(
                gate, name=f"{name}: {gate_name}", reason=f"{among}: {gate.reason}"
            )
        )
    return results


def _latency(name: str, devices: list[DeviceObservation], policy: Policy) -> list[GateResult]:
    """The p95 against the release before, where devices have both."""
    measured = [
        (gate.value / _latency_bound(gate, policy), gate, device.device)
        for device in devices
        for gate in device.gates
        if gate.name == LATENCY and gate.value is not None and gate.baseline is not None
    ]
    if not measured:
        return []
    share, gate, device = max(measured, key=lambda found: (found[0], found[2]))
    bound = _latency_bound(gate, policy)
    slowest = f"{device}, the slowest of {len(measured)}," if len(measured) > 1 else device
    return [
        GateResult(
            name=f"{name}: latency_p95_ratio",
            result=Verdict.PASS if share <= 1 else Verdict.FAIL,
            value=gate.value,
            baseline=gate.baseline,
            bound=bound,
            n=len(measured),
            unit="ms",
            reason=f"p95 on {slowest} is {gate.value:.2f} ms, the release before had "
            f"{gate.baseline:.2f} ms; at most {bound:.2f} ms is wanted",
        )
    ]


def _latency_over(device: DeviceObservation, policy: Policy) -> str:
    """What is wrong with a device's p95, if it is above the policy's bound."""
    for result in _latency(device.hardware_class, [device], policy):
        if result.result is Verdict.FAIL:
            return result.reason
    return ""


def _latency_bound(gate: GateResult, policy: Policy) -> float:
    bound = (gate.baseline or 0.0) * policy.gates.max_latency_p95_ratio
    return max(bound + policy.gates.latency_slack_ms, 1e-9)


def _margin(gate: GateResult) -> float:
    """How far a gate's value is from its bound, relative to it; what has no bound is far."""
    if gate.value is None or gate.bound is None:
        return float("inf")
    return abs(gate.value - gate.bound) / max(abs(gate.bound), 1e-9)


def count(devices: int) -> str:
    """`1 device`, `3 devices`."""
    return f"{devices} device" + ("" if devices == 1 else "s")
