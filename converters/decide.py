"""Which candidates become variants: pure decisions from gates, and why float was kept.

The float32 variants are always in the release. A quantized candidate joins them when its
accuracy gate passes (or is undecided and a person accepted that, with a reason) and it is
shown to be fast enough on its runtime. The variants of a target are ranked by their speed in
the last race.
"""

import msgspec

from cloud_sync.evidence import Accuracy, GateResult, Verdict


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one candidate; `reason` is the sentence for people.

    `undecided` is set where only the accuracy gate's doubt kept a candidate out.
    """

    deployable: bool
    undecided: bool = False
    accepted: str = ""
    reason: str


def choose(accuracy: GateResult, speed: GateResult, *, accept: str = "") -> Choice:
    """Decide on a quantized candidate.

    Args:
        accuracy: the gate on its accuracy drop.
        speed: the gate on its speed.
        accept: the reason that was given for deploying on an undecided gate.
    """
    if accuracy.result is Verdict.FAIL:
        return Choice(deployable=False, reason=f"it loses too much accuracy: {accuracy.reason}")
    if speed.result is Verdict.FAIL or (speed.result is Verdict.UNDECIDED and not accept):
        return Choice(deployable=False, reason=f"it is not shown to be faster: {speed.reason}")
    if accuracy.result is Verdict.UNDECIDED and not accept:
        return Choice(
            deployable=False,
            undecided=True,
            reason=f"its accuracy is undecided: {accuracy.reason}",
        )
    if Verdict.UNDECIDED in {accuracy.result, speed.result}:
        return Choice(
            deployable=True,
            accepted=accept,
            reason=f"undecided, accepted ({accept}): {accuracy.reason} {speed.reason}",
        )
    return Choice(deployable=True, reason=f"{accuracy.reason} {speed.reason}")


def choose_float(conversion: GateResult | None) -> Choice:
    """Decide on the float model on a runtime.

    Args:
        conversion: the gate on what it loses there, compared with the runtime that it was
            judged on first; None for that one.
    """
    if conversion is not None and conversion.result is Verdict.FAIL:
        return Choice(
            deployable=False, reason=f"the float model itself loses there: {conversion.reason}"
        )
    return Choice(deployable=True, reason="the float model is always an answer")


def kept_because(left_out: dict[str, str], served: set[str]) -> str | None:
    """One sentence for all targets whose answer is float; None where int8 serves them all.

    Args:
        left_out: by target, why a quantized candidate is no variant.
        served: targets that have a quantized variant all the same.
    """
    kept = {target: reason for target, reason in left_out.items() if target not in served}
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
