"""Whether a release that went live may stay: the trial's gates. Pure.

Each gate compares what the release did with live frames on this device with what the release
before it did there, and says pass, fail or undecided with its numbers. Intervals are Wilson
score intervals; frames of one camera are no independent samples, so that the interval is a
minimum of doubt, not all of it.
"""

import math

from cloud_sync.evidence import GateResult, LiveResult, Verdict
from cloud_sync.messages import TrialPolicy

CONFIDENCE = 0.95
MIN_BASELINE = 20


def wilson(count: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The two-sided Wilson score interval of a share; (0, 1) for no sample.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927).
    """
    if n == 0:
        return 0.0, 1.0
    z = _normal(confidence)
    share = count / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the formula gives 0 and 1, up to rounding.
    low = (centre - spread) / scale if count > 0 else 0.0
    high = (centre + spread) / scale if count < n else 1.0
    return max(0.0, low), min(1.0, high)


def _normal(confidence: float) -> float:
    """How many standard deviations on either side hold that share of a normal distribution."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + confidence / 2)


def judge(live: LiveResult, policy: TrialPolicy) -> tuple[GateResult, ...]:
    """All gates of a trial as it stands."""
    return (_errors(live, policy), _confident(live, policy), _latency(live, policy))


def stuck(seconds: float) -> GateResult:
    """The gate of a release whose inference does not end."""
    return GateResult(
        name="live.stuck",
        result=Verdict.FAIL,
        value=seconds,
        unit="s",
        reason=f"stuck inference: one frame has taken {seconds:.0f} s and does not end",
    )


def too_much_memory(resident: int, ceiling: int) -> GateResult:
    """The gate of a release with which the agent outgrows its memory."""
    return GateResult(
        name="live.memory",
        result=Verdict.FAIL,
        value=float(resident),
        bound=float(ceiling),
        unit="bytes",
        reason=f"the agent takes {resident >> 20} MB of memory, {ceiling >> 20} MB are allowed",
    )


def is_enough(seconds: float, inferred: int, policy: TrialPolicy) -> bool:
    """Whether the trial has lasted and seen what the policy asks for."""
    return seconds >= policy.soak_s and inferred >= policy.min_inferred


def _errors(live: LiveResult, policy: TrialPolicy) -> GateResult:
    tried = live.inferred + live.errors
    rate = live.errors / tried if tried else 0.0
    low, high = wilson(live.errors, tried)
    if tried >= policy.min_inferred and rate <= policy.max_error_rate:
        result = Verdict.PASS
    elif low > policy.max_error_rate:
        result = Verdict.FAIL
    else:
        result = Verdict.UNDECIDED
    return GateResult(
        name="live.error_rate",
        result=result,
        value=rate,
        bound=policy.max_error_rate,
        low=low,
        high=high,
        confidence=CONFIDENCE,
        n=tried,
        n_needed=policy.min_inferred if result is Verdict.UNDECIDED else None,
        reason=f"{live.errors} of {tried} inferences failed; "
        f"{policy.max_error_rate:.1%} are allowed",
    )


def _confident(live: LiveResult, policy: TrialPolicy) -> GateResult:
    name = "live.confident_share"
    share = live.confident / live.inferred if live.inferred else 0.0
    low, high = wilson(live.confident, live.inferred)
    if live.baseline_inferred < MIN_BASELINE:
        return GateResult(
            name=name,
            result=Verdict.PASS if live.inferred >= policy.min_inferred else Verdict.UNDECIDED,
            value=share,
            low=low,
            high=high,
            confidence=CONFIDENCE,
            n=live.inferred,
            reason=f"{share:.0%} of {live.inferred} results were confident; "
            "no release before it to compare with",
        )
    baseline = live.baseline_confident / live.baseline_inferred
    bound = baseline * policy.min_confident_ratio
    if live.inferred < policy.min_inferred:
        result = Verdict.UNDECIDED
    elif high < bound:
        result = Verdict.FAIL
    elif low >= bound or baseline == 0:
        result = Verdict.PASS
    else:
        result = Verdict.UNDECIDED
    return GateResult(
        name=name,
        result=result,
        value=share,
        baseline=baseline,
        bound=bound,
        low=low,
        high=high,
        confidence=CONFIDENCE,
        n=live.inferred,
        n_needed=_needed(share, bound, policy) if result is Verdict.UNDECIDED else None,
        reason=f"{share:.0%} of {live.inferred} results were confident "
        f"(95 % interval {low:.0%} to {high:.0%}), the release before had {baseline:.0%} "
        f"of {live.baseline_inferred}; at least {bound:.0%} is wanted",
    )


def _needed(share: float, bound: float, policy: TrialPolicy) -> int:
    """About how many results would set the interval clear of the bound."""
    distance = abs(share - bound)
    z = _normal(CONFIDENCE)
    variance = max(share * (1 - share), 0.01)
    clear = math.ceil(z * z * variance / (distance * distance)) if distance > 0.001 else 10**6  # noqa: PLR2004
    return max(policy.min_inferred, clear)


def _latency(live: LiveResult, policy: TrialPolicy) -> GateResult:
    name = "live.latency_p95"
    now, before = live.latency, live.baseline_latency
    if now is None:
        return GateResult(
            name=name, result=Verdict.UNDECIDED, unit="ms", reason="nothing was inferred yet"
        )
    if before is None:
        return GateResult(
            name=name,
            result=Verdict.PASS,
            value=now.p95_ms,
            n=now.n,
            unit="ms",
            reason=f"p95 is {now.p95_ms:.2f} ms; no release before it to compare with",
        )
    bound = before.p95_ms * policy.max_latency_p95_ratio + policy.latency_slack_ms
    if now.n < policy.min_inferred:
        result = Verdict.UNDECIDED
    else:
        result = Verdict.PASS if now.p95_ms <= bound else Verdict.FAIL
    return GateResult(
        name=name,
        result=result,
        value=now.p95_ms,
        baseline=before.p95_ms,
        bound=bound,
        n=now.n,
        n_needed=policy.min_inferred if result is Verdict.UNDECIDED else None,
        unit="ms",
        reason=f"p95 is {now.p95_ms:.2f} ms, the release before had {before.p95_ms:.2f} ms; "
        f"at most {bound:.2f} ms is wanted",
    )
