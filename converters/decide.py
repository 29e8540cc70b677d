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
            return Choice(deployable=False, reason=f"{_FAILED[gate.name]}: {gate.reason}")
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
    if not chance or accuracy.low > chance:
        return ()
    warning = (
        f"The float model's {accuracy.metric} is {100 * accuracy.value:.1f} % on {accuracy.n} "
        f"samples, which is not shown to be better than guessing ({100 * chance:.1f} %): it may "
        "have been trained with another pre-processing, or the labels are not its own."
    )
    return (warning,)
