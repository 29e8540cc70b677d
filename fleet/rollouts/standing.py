"""How one device stands in a rollout: whether it is done, has failed, or is to be tried again."""

import msgspec

from cloud_sync.evidence import GateResult, Verdict
from cloud_sync.messages import Phase
from cloud_sync.windows import open_s
from fleet.rollouts.failures import FailureKind, kind_of_rollback
from fleet.rollouts.observe import DeviceObservation, Figure
from fleet.rollouts.policy import Gates, Metric, Policy

LATENCY = "live.latency_p95"  # the agent's gate, which carries p95 and that of the release before
AT_REST = frozenset({Phase.COMMITTED, Phase.ROLLED_BACK, Phase.REFUSED})


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A device that counts as failed, why, and since when."""

    device: DeviceObservation
    kind: FailureKind
    why: str
    at: float


def is_done(device: DeviceObservation, release: str) -> bool:
    """Whether the device committed and has shown evidence for it.

    Nothing more is asked of one that ran this very release before.
    """
    return device.phase is Phase.COMMITTED and bool(device.gates or device.previous == release)


def is_refusing(device: DeviceObservation) -> bool:
    """Whether the device refused what the plan still resolves for it.

    It is left out, as if nothing fitted it, until the plan gives it another variant or an operator
    has it tried again: a refusal is no failure, and asking the same again would be refused again.
    """
    if device.phase is not Phase.REFUSED:
        return False
    return not device.variant or (
        device.variant == device.assigned_variant and not (device.again or device.restored)
    )


def failure(
    device: DeviceObservation, release: str, policy: Policy, now: float, up_since: float = 0.0
) -> Failure | None:
    """Why a device counts as failed, if it does: by what it said, or since it said too little."""
    phase = device.phase
    if phase is Phase.ROLLED_BACK:
        reason = device.reason or "it gave no reason"
        return _failed(device, kind_of_rollback(reason, device.cause), f"rolled back: {reason}")
    if phase is Phase.COMMITTED:
        why = _broken_gate(device, policy)
        if why:
            return _failed(device, FailureKind.GATE, why)
        if device.gates or device.previous == release:
            return None
    elif phase is Phase.REFUSED:
        return None
    if device.until:  # its group has times of its own
        return None
    return _late(device, policy, now, up_since)


def _late(device: DeviceObservation, policy: Policy, now: float, up_since: float) -> Failure | None:
    """Whether a device's time is over.

    Its silence counts only while the fleet listened: what it said while the fleet was down is in
    its outbox. So one that was given the release before `up_since` must be heard from first. Where
    the policy lets queued devices wait, one that has not answered yet has all the time there is.
    One that has update windows has that much time within them.
    """
    phase, assigned_at = device.phase, device.assigned_at
    if assigned_at is None:
        return None
    if assigned_at < up_since and (device.last_seen or 0.0) < up_since:
        return None
    timeout, begun = policy.limits.device_timeout_s, assigned_at
    if policy.limits.queued == "wait":
        if phase is None:
            return None
        begun = device.settled_at or assigned_at
    ends = max(begun, up_since) + timeout
    if now <= ends:
        return None
    if phase is not Phase.COMMITTED and device.windows:
        had = open_s(device.windows, max(begun, up_since), now, device.utc_offset_s)
        if had <= timeout:
            return None
    if phase is Phase.COMMITTED:
        return Failure(
            device=device,
            kind=FailureKind.NO_EVIDENCE,
            why=f"sent no evidence within {timeout:.0f} s that it had signed itself "
            "(what was refused: edgeml fleet security)",
            at=ends,
        )
    return Failure(
        device=device,
        kind=FailureKind.TIMED_OUT,
        why=f"has not committed within {timeout:.0f} s",
        at=ends,
    )


def tried_again_at(found: Failure, policy: Policy) -> float | None:
    """When a device that failed is tried again; None where it is not."""
    device = found.device
    if not device.variant or device.tries > policy.retries.after(found.kind):
        return None
    return found.at + policy.retries.cool_down_s


def is_beyond(figure: Figure, metric: Metric) -> bool | None:
    """Whether a figure is beyond a metric's bounds; None where its samples cannot say."""
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    beyond = (metric.max is not None and low > metric.max) or (
        metric.min is not None and high < metric.min
    )
    enough = figure.n >= metric.min_samples
    if beyond:  # an interval that is clear of the bound needs no more samples
        return True if enough or figure.low is not None else None
    within = (metric.max is None or figure.value <= metric.max) and (
        metric.min is None or figure.value >= metric.min
    )
    return False if within and enough else None


def latency_bound(gate: GateResult, gates: Gates) -> float:
    """What a p95 may be, in ms, after that of the release before."""
    bound = (gate.baseline or 0.0) * gates.max_latency_p95_ratio
    return max(bound + gates.latency_slack_ms, 1e-9)


def _broken_gate(device: DeviceObservation, policy: Policy) -> str:
    """Which gate a device that committed breaks, and how; empty for none."""
    for gate in device.gates:
        if gate.result is Verdict.FAIL:
            return f"committed, but {gate.name} fails: {gate.reason}"
        if (
            gate.name == LATENCY
            and gate.value is not None
            and gate.baseline is not None
            and gate.value > (bound := latency_bound(gate, policy.gates))
        ):
            return (
                f"is too slow: its p95 is {gate.value:.2f} ms, the release before had "
                f"{gate.baseline:.2f} ms; at most {bound:.2f} ms is wanted"
            )
    if device.figures:
        for metric in policy.gates.bounds():
            figure = device.figures.get(metric.name)
            if figure and not metric.max_failing_percent and is_beyond(figure, metric):
                return f"is beyond a bound: {told(figure, metric)}"
    return ""


def told(figure: Figure, metric: Metric) -> str:
    """`memory_mb is 412 MB on 1 sample; at most 300 MB is wanted`."""
    unit = f" {metric.unit}" if metric.unit else ""
    bounds = [
        f"at {word} {bound:g}{unit}"
        for word, bound in (("most", metric.max), ("least", metric.min))
        if bound is not None
    ]
    samples = f"{figure.n} sample" + ("" if figure.n == 1 else "s")
    return (
        f"{metric.name} is {figure.value:.4g}{unit} on {samples}; {' and '.join(bounds)} is wanted"
    )


def _failed(device: DeviceObservation, kind: FailureKind, why: str) -> Failure:
    at = device.settled_at if device.settled_at is not None else device.assigned_at
    return Failure(device=device, kind=kind, why=why, at=at or 0.0)
