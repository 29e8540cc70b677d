"""Which candidates become variants: pure decisions from gates, and why float was kept.

A candidate becomes a variant where every gate passes, or where a person accepted, with a
reason, those that are undecided. The float32 model has no accuracy or speed to show, but what
it takes of the device has limits like any other's. The variants of a target are ranked by
their speed in the last race.
"""

from collections.abc import Mapping, Sequence

import msgspec

from cloud_sync.evidence import Accuracy, GateResult, Verdict
from converters.recipe import FLOAT

_FAILED = {
    "accuracy": "quantization loses too much accuracy",
    "conversion": "conversion loses too much: float32 itself is worse on this runtime",
    "speedup": "it is not shown to be faster",
    "size": "its file is too large",
    "memory": "it takes too much memory",
    "start": "it starts too slowly",
    "latency": "it takes too long",
    "placement": "too much of it would run on the CPU",
}
_DOUBTED = {"speedup": "speed"}
ACCEPT = 'deploy it all the same with --accept-undecided "REASON"'


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one candidate; `reason` is the sentence for people.

    `undecided` is set where only doubt kept a candidate out, `remedy` says then what to do.
    """

    deployable: bool
    undecided: bool = False
    accepted: str = ""
    reason: str
    remedy: str = ""


NOT_YET = Choice(deployable=False, reason="it was not decided on")


def choose(gates: Sequence[GateResult], *, accept: str = "") -> Choice:
    """Decide on a candidate.

    Args:
        gates: all of them. Doubt about what float32 loses on a runtime beside another
            (`conversion`) keeps nothing out: there float32 is what others are compared with.
        accept: the reason that was given for deploying on an undecided gate.
    """
    for gate in gates:
        if gate.result is Verdict.FAIL:
            return Choice(deployable=False, reason=f"{_failed(gate)}: {gate.reason}")
    doubted = [g for g in gates if g.result is Verdict.UNDECIDED and g.name != "conversion"]
    if doubted and not accept:
        reasons = " ".join(gate.reason for gate in doubted)
        names = [_DOUBTED.get(gate.name, gate.name) for gate in doubted]
        return Choice(
            deployable=False,
            undecided=True,
            reason=f"its {' and '.join(names)} {'is' if len(names) == 1 else 'are'} undecided: "
            f"{reasons}",
            remedy=_remedy(doubted),
        )
    said = " ".join(gate.reason for gate in gates) or "the float model is always an answer"
    if doubted:
        return Choice(
            deployable=True, accepted=accept, reason=f"undecided, accepted ({accept}): {said}"
        )
    return Choice(deployable=True, reason=said)


def _failed(gate: GateResult) -> str:
    """What a gate that failed says against a candidate; a backend has gates of its own."""
    return _FAILED.get(gate.name, f"it fails the gate {gate.name}")


def _remedy(doubted: Sequence[GateResult]) -> str:
    """What would decide, and what deploys without it: a sentence."""
    ways = []
    for gate in doubted:
        if gate.name == "accuracy":
            needed = f"about {gate.n_needed:,}" if gate.n_needed else "more"
            ways.append(f"evaluate on {needed} samples")
        elif gate.value is None:
            ways.append("convert on such a machine")
        else:
            ways.append("convert again while this machine does nothing else")
    does = " and ".join(dict.fromkeys(ways))
    return f"{does[0].upper()}{does[1:]}, or {ACCEPT}."


def in_brief(precision: str, gates: Sequence[GateResult], reason: str) -> str:
    """One sentence on why a candidate is no variant, with the figures that decided and no more.

    Args:
        precision: the candidate's.
        gates: all of them; none where it was not judged.
        reason: the whole reason, which serves where there is nothing shorter.
    """
    blocking = [gate for gate in gates if gate.result is Verdict.FAIL] or [
        gate for gate in gates if gate.result is Verdict.UNDECIDED and gate.name != "conversion"
    ]
    told = [gate for gate in blocking if _clause(precision, gate)]
    if not told:
        return reason
    names = [_DOUBTED.get(gate.name, gate.name) for gate in told[1:]]
    verdict = "fails" if told[0].result is Verdict.FAIL else "is undecided"
    also = f"; its {' and its '.join(names)} {verdict} too" if names else ""
    return f"{_clause(precision, told[0])}{also}."


def _clause(precision: str, gate: GateResult) -> str:
    """What an accuracy or speed gate says against a candidate; empty for other gates."""
    fails = gate.result is Verdict.FAIL
    if gate.name == "speedup" and gate.value is None:
        return (
            f"the speed of {precision} is undecided: no such processor is here, and an emulator's "
            "times mean nothing"
        )
    if gate.value is None or gate.bound is None or gate.baseline is None:
        return ""
    if gate.name == "speedup":
        said = f"{precision} is not shown to be faster"
        said = said if fails else f"the speed of {precision} is undecided"
        disagree = ", but races disagree" if not fails and _is_clear(gate) else ""
        return (
            f"{said}: it runs at {gate.value:.2f} x the speed of float32, and {gate.bound:g} x is "
            f"asked for{disagree}"
        )
    if gate.name != "accuracy" or gate.low is None or gate.high is None:
        return ""
    drop, least, most, allowed = (
        100 * (gate.baseline - figure) for figure in (gate.value, gate.high, gate.low, gate.bound)
    )
    between = f"at least {least:.2f}" if fails else f"between {least:.2f} and {most:.2f}"
    said = f"the accuracy of {precision} is undecided"
    said = "quantization loses too much accuracy" if fails else said
    return (
        f"{said}: {precision} drops {drop:.2f} points on {gate.n} samples, {between} at "
        f"{100 * (gate.confidence or 0):g} % confidence, and {allowed:.3g} may be lost"
    )


def _is_clear(gate: GateResult) -> bool:
    """Whether its own interval would decide."""
    low, high, bound = gate.low, gate.high, gate.bound or 0.0
    return low is not None and high is not None and (low >= bound or high < bound)


def kept_because(
    left_out: Mapping[str, str], served: Mapping[str, Sequence[tuple[str, str]]]
) -> str | None:
    """One sentence for all targets whose answer is float; None where int8 is that of them all.

    Args:
        left_out: by target, why a quantized candidate is no variant.
        served: by target, precision and runtime of its variants, best first.
    """
    kept: dict[str, str] = {}
    for target in dict.fromkeys((*left_out, *served)):
        variants = served.get(target, ())
        quantized = next((v for v in variants if v[0] != FLOAT), None)
        if quantized is None:
            kept |= {target: left_out[target]} if target in left_out else {}
        elif variants[0] != quantized:
            kept[target] = (
                f"{' on '.join(variants[0])} is faster than {' on '.join(quantized)}, "
                "which is in the release after it."
            )
    if not kept:
        return None
    if len(set(kept.values())) == 1:
        return f"{', '.join(kept)}: {next(iter(kept.values()))}"
    return " ".join(f"{target}: {reason}" for target, reason in kept.items())


def warnings_about(accuracy: Accuracy, chance: float) -> tuple[str, ...]:
    """What is wrong with the float model itself, in which int8 may well be as wrong.

    Args:
        accuracy: of the float model.
        chance: what guessing would score; 0 where that is not known.
    """
    if not accuracy.value:
        warning = (
            f"The float model's {accuracy.metric} is 0 on {accuracy.n} samples: where nothing is "
            "right, nothing can be lost. It may have been trained with another pre-processing, or "
            "the labels are not its own."
        )
        return (warning,)
    if not chance or accuracy.low > chance:
        return ()
    if chance >= 1:
        warning = (
            f"All {accuracy.n} labels are the same, so that a model that always gives one answer "
            "would be right: evaluate on samples of every class."
        )
        return (warning,)
    warning = (
        f"The float model's {accuracy.metric} is {100 * accuracy.value:.1f} % on {accuracy.n} "
        f"samples, which is not shown to be better than guessing ({100 * chance:.1f} %): it may "
        "have been trained with another pre-processing, or the labels are not its own."
    )
    return (warning,)
