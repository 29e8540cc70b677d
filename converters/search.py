"""What to do next: the pure part of the search for the best quantized variant.

A `Move` says how to quantize: a method, a flavour of integers, how ranges are found, and what
stays in float. `next_step` looks at the model and at what came of the steps so far, and
proposes the most promising one that is left, or none. Its reasons:

- whether a file is fast depends on what is quantized, not on how ranges were found; so a
  structure that is not fast enough is tried once, and none follows one that passes;
- which ranges are best shows without labels: each is auditioned, its outputs on calibration
  data compared with the float model's, and only the most faithful is judged;
- detectors lose boxes first where coordinates and scores share one scale, so the head goes
  back to float before anything else does;
- what is then still lost sits in few nodes: the most sensitive ones go back, more each time;
- recurrent nets and those made of matrix products want dynamic quantization;
- **every judgement on the same data is another chance to pass by luck.** The first candidate
  is judged at the confidence that was asked for, each further one at half the error of the one
  before, so that a search of any length errs at most twice as often as a single test; and
  where even a candidate without any difference could not pass any more, the search ends.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from cloud_sync.evidence import Verdict

_SENSITIVE_SHARES = (0.05, 0.1, 0.2, 0.4)


class Kind(StrEnum):
    """A method of quantization."""

    STATIC = "static"
    DYNAMIC = "dynamic"
    FLOAT16 = "float16"
    WEIGHT_ONLY = "weight-only"


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """How one candidate is made.

    `layers` quantizes only what has weights, `head` keeps the detector's head in float,
    `sensitive` is the share of the quantized nodes that go back to float, the most sensitive
    first. `bits` is of weight-only.
    """

    kind: Kind
    flavour: str = ""
    calibration: str = "minmax"
    percentile: float = 99.99
    bias_correction: bool = False
    equalize: bool = False
    layers: bool = False
    head: bool = False
    sensitive: float = 0.0
    bits: int = 8

    @property
    def structure(self) -> tuple[str, str, bool, bool, float, int]:
        """What decides on speed."""
        return (self.kind, self.flavour, self.layers, self.head, self.sensitive, self.bits)

    def __str__(self) -> str:
        if self.kind is Kind.WEIGHT_ONLY:
            return f"weight-only int{self.bits}"
        if self.kind is not Kind.STATIC:
            return str(self.kind)
        words = ["static", self.flavour, self.calibration]
        words += ["bias-corrected"] if self.bias_correction else []
        words += ["equalised"] if self.equalize else []
        words += ["layers only"] if self.layers else []
        words += ["head in float"] if self.head else []
        words += [f"{100 * self.sensitive:g} % of the nodes in float"] if self.sensitive else []
        return " ".join(words)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What of the model, the target and the data decides on the order of steps.

    `flavours` are those of the target, the most promising first. `matrix_share` is the share
    of the weights that matrix products hold. `has_head` tells that ranges at the outputs
    differ so much that one scale cannot serve them. `samples` judge, within `max_drop`, at
    `confidence`.
    """

    flavours: tuple[str, ...]
    recurrent: bool = False
    convolutions: int = 0
    depthwise: bool = False
    matrix_share: float = 0.0
    has_head: bool = False
    samples: int
    max_drop: float
    confidence: float


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A move to make and time, and with a `confidence` to judge at that level."""

    move: Move
    confidence: float | None


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a step: it was refused, or not fast enough, or compared, or judged.

    `fidelity` is the ratio of signal to noise at the outputs, in dB.
    """

    step: Step
    refused: bool = False
    fast: bool = False
    fidelity: float | None = None
    accuracy: Verdict | None = None


def next_step(facts: Facts, tried: Sequence[Tried]) -> Step | None:
    """The next step, or None where no promising one is left."""
    confidence = _next_confidence(facts, tried)
    if confidence is None or any(t.accuracy is Verdict.PASS for t in tried):
        return None
    slow = {t.step.move.structure for t in tried if t.refused or not t.fast}
    judged = {t.step.move for t in tried if t.accuracy is not None}
    seen = {t.step.move for t in tried}
    for group in _groups(facts, tried):
        left = [move for move in group if move.structure not in slow]
        unseen = [move for move in left if move not in seen]
        if len(group) > 1 and unseen:
            return Step(move=unseen[0], confidence=None)
        if not left or judged & set(left):
            continue
        best = max(left, key=lambda move: _fidelity(tried, move))
        return Step(move=best, confidence=confidence)
    return None


def _next_confidence(facts: Facts, tried: Sequence[Tried]) -> float | None:
    """The level of the next judgement; None where no candidate could pass at it."""
    judgements = sum(t.accuracy is not None for t in tried)
    error: float = (1 - facts.confidence) / 2**judgements
    return None if judgements and not _can_pass(facts, error) else 1 - error


def _can_pass(facts: Facts, error: float) -> bool:
    """Whether there are samples enough to pass at this error, were there no difference at all."""
    return (1 - facts.max_drop) ** facts.samples <= error


def _groups(facts: Facts, tried: Sequence[Tried]) -> Iterator[list[Move]]:
    """Moves in the order of their promise; of those in one group, the most faithful is judged."""
    by_matrices = facts.recurrent or facts.matrix_share > 0.5  # noqa: PLR2004
    if by_matrices:
        yield [Move(kind=Kind.DYNAMIC)]
    if not facts.recurrent or facts.convolutions:
        for flavour in facts.flavours:
            yield from _static(flavour, facts, tried)
    if by_matrices:
        yield [Move(kind=Kind.WEIGHT_ONLY, bits=8)]
        yield [Move(kind=Kind.WEIGHT_ONLY, bits=4)]
    yield [Move(kind=Kind.FLOAT16)]


def _static(flavour: str, facts: Facts, tried: Sequence[Tried]) -> Iterator[list[Move]]:
    whole = Move(kind=Kind.STATIC, flavour=flavour)
    changed = msgspec.structs.replace
    balanced = changed(whole, calibration="percentile", bias_correction=True, equalize=True)
    ranges = [
        whole,
        changed(whole, calibration="percentile"),
        balanced,
        changed(whole, calibration="entropy"),
    ]
    if facts.has_head:
        ranges += [changed(whole, head=True), changed(balanced, head=True)]
    layers = [changed(balanced, layers=True), changed(whole, layers=True)]
    if _can_pass(facts, 1 - facts.confidence):
        yield ranges
        yield layers
    else:  # there is one judgement, and it is of what a person may accept
        yield ranges + layers
    best = max(ranges, key=lambda move: _fidelity(tried, move))
    if any(t.step.move == best and t.fast for t in tried):
        for share in _SENSITIVE_SHARES:
            yield [changed(best, sensitive=share)]


def _fidelity(tried: Sequence[Tried], move: Move) -> float:
    return max(
        (t.fidelity for t in tried if t.step.move == move and t.fidelity is not None),
        default=float("-inf"),
    )
