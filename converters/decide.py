"""Which candidates become variants: pure decisions from gates, and why float was kept.

The float32 variant is always in the release. An int8 candidate joins it, ranked before it,
when its accuracy gate passes (or is undecided and a person accepted that, with a reason) and
it is shown to be fast enough. The ranks follow from the decision alone, never from how many
per cent faster something was, so that noise cannot change a release.
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
    """Decide on an int8 candidate.

    Args:
        accuracy: the gate on its accuracy drop.
        speed: the gate on its speed.
        accept: the reason that was given for deploying on an undecided accuracy gate.
    """
    if accuracy.result is Verdict.FAIL:
        return Choice(deployable=False, reason=f"int8 loses too much accuracy: {accuracy.reason}")
    if speed.result is not Verdict.PASS:
        return Choice(deployable=False, reason=f"int8 is not shown to be faster: {speed.reason}")
    if accuracy.result is Verdict.UNDECIDED and not accept:
        return Choice(
            deployable=False,
            undecided=True,
            reason=f"the accuracy of int8 is undecided: {accuracy.reason}",
        )
    if accuracy.result is Verdict.UNDECIDED:
        return Choice(
            deployable=True,
            accepted=accept,
            reason=f"undecided, accepted ({accept}): {accuracy.reason}",
        )
    return Choice(deployable=True, reason=f"{accuracy.reason} {speed.reason}")


def kept_because(left_out: dict[str, str]) -> str | None:
    """One sentence for all targets whose answer is float; None where int8 serves them all."""
    if not left_out:
        return None
    if len(set(left_out.values())) == 1:
        return f"{', '.join(left_out)}: {next(iter(left_out.values()))}"
    return " ".join(f"{target}: {reason}" for target, reason in left_out.items())


def warnings_about(accuracy: Accuracy, classes: int) -> tuple[str, ...]:
    """What is wrong with the float model itself, in which int8 may well be as wrong."""
    chance = 1 / classes
    if accuracy.low > chance:
        return ()
    warning = (
        f"The float model answers {100 * accuracy.value:.1f} % of {accuracy.n} samples right, "
        f"which is not shown to be better than guessing among {classes} classes: it may have "
        "been trained with another pre-processing, or the labels are not its own."
    )
    return (warning,)
