"""The gates of a wave, over what its devices have shown.

They are decided for each hardware class by itself. More devices are not more samples: devices
are counted for failures and for live behaviour, and golden-set figures are never pooled.
"""

from collections import defaultdict
from collections.abc import Sequence

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from fleet.rollouts.observe import DeviceObservation
from fleet.rollouts.policy import Policy

FAILED_PHASES = frozenset({Phase.ROLLED_BACK})


def failed(device: DeviceObservation) -> bool:
    """Whether the device gave the release up; `refused` is planned anew and no failure."""
    return device.phase in FAILED_PHASES


def timed_out(device: DeviceObservation, policy: Policy, now: float) -> bool:
    """Whether an assigned device has not committed in the time that the policy allows."""
    return (
        device.assigned_at is not None
        and device.phase not in {Phase.COMMITTED, Phase.ROLLED_BACK}
        and now - device.assigned_at > policy.limits.device_timeout_s
    )


def wave_gates(
    wave: Sequence[DeviceObservation], policy: Policy, now: float
) -> tuple[GateResult, ...]:
    """The gates of a wave's devices: failures over all, and evidence for each class."""
    classes: dict[str, list[DeviceObservation]] = defaultdict(list)
    for device in wave:
        classes[device.hardware_class].append(device)
    gates = [_failures(wave, policy, now)]
    for name, devices in sorted(classes.items()):
        gates.append(_evidence(name, devices, policy))
        gates += _device_gates(name, devices)
    return tuple(gates)


def _failures(wave: Sequence[DeviceObservation], policy: Policy, now: float) -> GateResult:
    bad = [d for d in wave if failed(d)]
    late = [d for d in wave if timed_out(d, policy, now)]
    limit = policy.limits.max_failures
    number = len(bad) + len(late)
    if number > limit:
        result = Verdict.FAIL
    else:
        open_ = any(d.phase is not Phase.COMMITTED for d in wave if d not in bad)
        result = Verdict.UNDECIDED if open_ else Verdict.PASS
    details = [f"{d.device} rolled back: {d.reason}" for d in bad]
    details += [f"{d.device} has not committed in time" for d in late]
    more = f" ({'; '.join(details[:3])})" if details else ""
    return GateResult(
        name="devices.failed",
        result=result,
        value=float(number),
        bound=float(limit),
        n=len(wave),
        reason=f"{number} of {len(wave)} devices failed, {limit} may{more}",
    )


def _evidence(name: str, devices: list[DeviceObservation], policy: Policy) -> GateResult:
    committed = sum(d.phase is Phase.COMMITTED for d in devices)
    needed = min(policy.gates.min_evidence, len(devices))
    return GateResult(
        name=f"{name}: committed",
        result=Verdict.PASS if committed >= needed else Verdict.UNDECIDED,
        value=float(committed),
        bound=float(needed),
        n=len(devices),
        n_needed=needed if committed < needed else None,
        reason=f"{committed} of {len(devices)} {name} devices have committed, "
        f"{needed} with evidence are needed",
    )


def _device_gates(name: str, devices: list[DeviceObservation]) -> list[GateResult]:
    """For each gate that devices decided themselves, the worst of this class."""
    worst: dict[str, tuple[int, GateResult, str]] = {}
    order = {Verdict.FAIL: 0, Verdict.UNDECIDED: 1, Verdict.PASS: 2}
    for device in devices:
        for gate in device.gates:
            rank = order[gate.result]
            if gate.name not in worst or rank < worst[gate.name][0]:
                worst[gate.name] = (rank, gate, device.device)
    return [
        GateResult(
            name=f"{name}: {gate.name}",
            result=gate.result,
            value=gate.value,
            baseline=gate.baseline,
            bound=gate.bound,
            low=gate.low,
            high=gate.high,
            confidence=gate.confidence,
            n=gate.n,
            n_needed=gate.n_needed,
            unit=gate.unit,
            reason=f"{device}: {gate.reason}",
        )
        for _, (_, gate, device) in sorted(worst.items())
    ]
