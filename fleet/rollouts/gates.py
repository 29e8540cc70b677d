"""The gates of a wave, over what its devices have shown.

They are decided for each hardware class by itself. More devices are not more samples: devices
are counted for failures, latency and live behaviour, and golden-set figures are never pooled:
a class is as good as its worst device.
"""

import math
from collections.abc import Iterator

import msgspec

from cloud_sync.evidence import GateResult, Verdict
from fleet.rollouts.failures import Threshold
from fleet.rollouts.observe import RolloutState
from fleet.rollouts.policy import Metric, Policy
from fleet.rollouts.shares import CONFIDENCE, Share
from fleet.rollouts.standing import LATENCY, latency_bound, told
from fleet.rollouts.survey import Class, Shown, Survey

FAILURES = "devices.failed"
SUCCESSES = "devices.committed"
_MAX_NAMED = 3
__all__ = ["FAILURES", "LATENCY", "SUCCESSES", "count", "wave_gates"]


def wave_gates(seen: Survey, policy: Policy, rollout: RolloutState) -> tuple[GateResult, ...]:
    """The gates of a wave: failures over all its devices, then what each class shows.

    Failures within the policy's limit are tolerated: those devices have their say in the first
    gates only. Above it, their figures are shown too, since they say why the rollout stops. A gate
    that was overridden in this wave passes with the words of who did it.
    """
    failed = _failures(seen, policy, rollout)
    gates = [failed, *_successes(seen, policy, rollout)]
    gates += [_threshold(seen, one) for one in policy.thresholds]
    tolerated = failed.result is not Verdict.FAIL
    for name, of_class in sorted(seen.classes.items()):
        if not of_class.assigned + of_class.taken:
            continue
        shown = of_class.good if tolerated else of_class.good.merged(of_class.bad)
        gates.append(_evidence(name, of_class, policy))
        gates += _device_gates(name, shown, policy)
        gates += _latency(name, shown, policy)
        gates += [_metric(name, of_class, shown, m, policy) for m in policy.gates.bounds()]
        gates += _crashes(name, of_class, policy)
    return tuple(_overridden(gate, rollout) for gate in gates)


def _failures(seen: Survey, policy: Policy, rollout: RolloutState) -> GateResult:
    found, limit, reached = seen.failures, policy.failures_allowed, seen.reached
    if limit is not None and len(found) > limit:
        result = Verdict.FAIL
    else:
        result = Verdict.PASS if is_through(seen, policy, rollout) else Verdict.UNDECIDED
    first = sorted(found, key=lambda f: f.device.device)[:_MAX_NAMED]
    named = [f"{f.device.device} {f.why.rstrip('.')}" for f in first]
    if len(found) > _MAX_NAMED:
        named.append(f"and {len(found) - _MAX_NAMED} more")
    more = f" ({'; '.join(named)})" if named else ""
    allowed = "" if limit is None else f", {limit} may" if limit else ", none may"
    return GateResult(
        name=FAILURES,
        result=result,
        value=float(len(found)),
        bound=None if limit is None else float(limit),
        n=reached,
        n_needed=reached if result is Verdict.UNDECIDED else None,
        unit="devices",
        reason=f"{len(found)} of {count(reached)} failed{allowed}{more}",
    )


def is_through(seen: Survey, policy: Policy, rollout: RolloutState) -> bool:
    """Whether the wave waits for no device any more: all have finished, or enough committed."""
    if seen.done + len(seen.failures) >= seen.reached:
        return True
    return policy.wave(rollout.wave).success_percent is not None and (
        not seen.ungiven and seen.done >= _successes_needed(seen, policy, rollout)
    )


def _successes_needed(seen: Survey, policy: Policy, rollout: RolloutState) -> int:
    return math.ceil(seen.reached * (policy.wave(rollout.wave).success_percent or 100.0) / 100)


def _successes(seen: Survey, policy: Policy, rollout: RolloutState) -> Iterator[GateResult]:
    """The share that must commit, where the wave says one."""
    if policy.wave(rollout.wave).success_percent is None:
        return
    needed = _successes_needed(seen, policy, rollout)
    if seen.done >= needed:
        result = Verdict.PASS
    else:
        result = Verdict.FAIL if seen.reached - len(seen.failures) < needed else Verdict.UNDECIDED
    yield GateResult(
        name=SUCCESSES,
        result=result,
        value=float(seen.done),
        bound=float(needed),
        n=seen.reached,
        n_needed=needed if result is Verdict.UNDECIDED else None,
        unit="devices",
        reason=f"{seen.done} of {count(seen.reached)} committed with evidence, {needed} must",
    )


def _threshold(seen: Survey, threshold: Threshold) -> GateResult:
    """A share of the devices that have finished; it has its say from the minimum on."""
    kind = threshold.failures
    failed = sum(kind in {"any", f.kind.value} for f in seen.failures)
    finished = seen.done + len(seen.failures)
    if kind == "refused":
        failed = len(seen.refusing)
        finished += failed
    share = 100 * failed / finished if finished else 0.0
    beyond = finished >= threshold.minimum and share > threshold.percent
    what = "failed" if kind == "any" else kind.replace("_", " ")
    return GateResult(
        name=threshold.name,
        result=Verdict.FAIL if beyond else Verdict.PASS,
        value=share,
        bound=threshold.percent,
        n=finished,
        unit="%",
        reason=f"{failed} of {count(finished)} that have finished {what} ({share:.3g} %); above "
        f"{threshold.percent:g} % of at least {threshold.minimum} it stops",
    )


def _evidence(name: str, of_class: Class, policy: Policy) -> GateResult:
    devices, done = of_class.assigned + of_class.taken, of_class.done
    needed, good = min(policy.gates.min_evidence, devices), devices - of_class.failed
    if done >= needed:
        result = Verdict.PASS
    else:
        result = Verdict.UNDECIDED if good >= needed else Verdict.FAIL
    return GateResult(
        name=f"{name}: committed",
        result=result,
        value=float(done),
        bound=float(needed),
        n=devices,
        n_needed=needed if result is Verdict.UNDECIDED else None,
        unit="devices",
        reason=f"{done} of {count(devices)} of {name} committed with evidence, "
        f"{needed} must" + ("" if good >= needed else " and no more can"),
    )


def _device_gates(name: str, shown: Shown, policy: Policy) -> Iterator[GateResult]:
    """For each gate that devices decided themselves, the worst of this class."""
    for gate_name, worst in sorted(shown.gates.items()):
        gate = worst.gate
        if gate is None:
            continue
        among = f"{worst.device}, the closest of {worst.n}" if worst.n > 1 else worst.device
        reason, result = f"{among}: {gate.reason}", gate.result
        if result is Verdict.UNDECIDED and policy.gates.undecided == "accept":
            result = Verdict.PASS
            reason = f"{reason.rstrip('.')} (undecided, which the policy accepts)"
        yield msgspec.structs.replace(
            gate, name=f"{name}: {gate_name}", result=result, reason=reason
        )


def _latency(name: str, shown: Shown, policy: Policy) -> Iterator[GateResult]:
    """The p95 against the release before, where devices have both."""
    worst = shown.latency
    if worst is None or worst.gate is None:
        return
    gate, bound = worst.gate, latency_bound(worst.gate, policy.gates)
    slowest = f"{worst.device}, the slowest of {worst.n}," if worst.n > 1 else worst.device
    yield GateResult(
        name=f"{name}: latency_p95_ratio",
        result=Verdict.PASS if (gate.value or 0.0) <= bound else Verdict.FAIL,
        value=gate.value,
        baseline=gate.baseline,
        bound=bound,
        n=worst.n,
        unit="ms",
        reason=f"p95 on {slowest} is {gate.value:.2f} ms, the release before had "
        f"{gate.baseline:.2f} ms; at most {bound:.2f} ms is wanted",
    )


def _metric(name: str, of_class: Class, shown: Shown, metric: Metric, policy: Policy) -> GateResult:
    """A bound on a reported figure: the worst device of the class, or the share beyond it."""
    devices = of_class.assigned + of_class.taken
    needed = min(policy.gates.min_evidence, max(1, devices - of_class.failed))
    beyond = shown.beyond[metric.name]
    judged = beyond + shown.within[metric.name]
    worst = shown.figures.get(metric.name)
    full_name = f"{name}: {metric.name}"
    if worst is None or worst.figure is None:
        return GateResult(
            name=full_name,
            result=Verdict.UNDECIDED,
            bound=metric.max if metric.max is not None else metric.min,
            n_needed=needed,
            unit=metric.unit,
            reason=f"no device of {name} has reported {metric.name} yet; "
            f"{count(needed)} with {_samples(metric)} would decide it",
        )
    if metric.max_failing_percent:
        share = Share(count=beyond, n=judged, of=max(devices, judged))
        reason = f"{beyond} of {count(judged)} are beyond {_bounds(metric)}"
        return _share(full_name, share, metric.max_failing_percent, needed, reason)
    unsure, figure = shown.unsure[metric.name], worst.figure
    enough = Verdict.PASS if judged >= needed else Verdict.UNDECIDED
    result = Verdict.FAIL if beyond else enough
    among = f"{worst.device}, the closest of {worst.n}," if worst.n > 1 else worst.device
    lack = f"; {needed - judged} more of {name} must report it" if judged < needed else ""
    if unsure and judged < needed:
        lack += f" ({count(unsure)} with fewer than {metric.min_samples} samples, or too close)"
    return GateResult(
        name=full_name,
        result=result,
        value=figure.value,
        bound=metric.max if metric.max is not None else metric.min,
        low=figure.low,
        high=figure.high,
        confidence=CONFIDENCE if figure.low is not None else None,
        n=judged,
        n_needed=needed if result is Verdict.UNDECIDED else None,
        unit=metric.unit,
        reason=f"on {among} {told(figure, metric)}{lack}",
    )


def _crashes(name: str, of_class: Class, policy: Policy) -> Iterator[GateResult]:
    """The share of the class on which the release crashed, where the policy bounds it."""
    bound = policy.gates.max_crash_percent
    if bound is None:
        return
    devices = of_class.assigned + of_class.taken
    finished = of_class.done + of_class.failed
    share = Share(count=of_class.crashed, n=finished, of=max(devices, finished))
    reason = f"it crashed on {of_class.crashed} of {count(finished)}"
    needed = min(policy.gates.min_evidence, devices)
    yield _share(f"{name}: crash_rate", share, bound, needed, reason)


def _share(name: str, share: Share, percent: float, needed: int, reason: str) -> GateResult:
    """A share of devices against its bound, decided by its interval."""
    bound = percent / 100
    low, high = share.interval
    if low > bound:
        result = Verdict.FAIL
    else:
        result = Verdict.PASS if high <= bound and share.n >= needed else Verdict.UNDECIDED
    doubt = result is Verdict.UNDECIDED
    return GateResult(
        name=name,
        result=result,
        value=share.value,
        bound=bound,
        low=low,
        high=high,
        confidence=CONFIDENCE,
        n=share.n,
        n_needed=max(needed, share.needed(bound)) if doubt else None,
        reason=f"{reason}: {share.value:.1%} (95 % interval {low:.1%} to {high:.1%}), "
        f"{percent:g} % may",
    )


def _overridden(gate: GateResult, rollout: RolloutState) -> GateResult:
    """A gate that someone let pass in this wave, and whose result is no worse than it was then."""
    if gate.result is Verdict.PASS:
        return gate
    for one in rollout.overrides:
        covers = one.result is Verdict.FAIL or gate.result is Verdict.UNDECIDED
        if (one.gate, one.wave) == (gate.name, rollout.wave) and covers:
            words = (
                f"{gate.reason.rstrip('.')} ({gate.result}, overridden by {one.by}: {one.reason})"
            )
            return msgspec.structs.replace(gate, result=Verdict.PASS, reason=words)
    return gate


def _samples(metric: Metric) -> str:
    return f"{metric.min_samples} sample" + ("" if metric.min_samples == 1 else "s")


def _bounds(metric: Metric) -> str:
    unit = f" {metric.unit}" if metric.unit else ""
    both = [f"{bound:g}{unit}" for bound in (metric.min, metric.max) if bound is not None]
    return f"{metric.name} {' to '.join(both)}"


def count(devices: int) -> str:
    """`1 device`, `3 devices`."""
    return f"{devices} device" + ("" if devices == 1 else "s")
