"""What to do next: the pure part of the search for the best quantized variant.

A `Move` says how to quantize: a method, a flavour of integers, how ranges are found, and what
stays in float. `next_step` looks at the model and at what came of the steps so far, and
proposes the most promising one that is left, or none. Its reasons:

- whether a file is fast depends on what is quantized, not on how ranges were found; so a
  structure that is not fast enough is tried once, and none follows one that passes;
- which of two structures is the faster differs by net and runtime, so all operators and the
  layers alone are both timed before one is judged, and the faster is judged first;
- which ranges are best shows without labels: each is auditioned, its outputs on calibration
  data compared with the float model's, and only the most faithful is judged; where channels
  cannot be equalised, biases are corrected all the same;
- detectors lose boxes first where coordinates and scores share one scale, so the head goes
  back to float before anything else does;
- what is then still lost sits in few nodes: the most sensitive ones go back, more each time;
- recurrent nets and those made of matrix products want dynamic quantization;
- **every judgement on the same data is another chance to pass by luck.** The first candidate
  is judged at the confidence that was asked for, each further one at half the error of the one
  before, so that a search of any length errs at most twice as often as a single test; and
  where even a candidate without any difference could not pass any more, the search ends.

Files of another format are searched for apart, since a device with only that runtime has no use
for the others: `Facts.family` says which. Their judgements are further chances all the same, and
go on from the error that was reached (`Bounds.judged`); the first of a family is always made,
for a person to see, even where the data could not let it pass. LiteRT's files have fewer moves:

- its kernels know one kind of integers; ranges by the extremes and by their average are
  auditioned, all operators in int8 before the layers alone, which keep sums, activations and
  what joins different ranges exact, and are slower or faster, as kernels go;
- dynamic files compute in integers, too, and lose less than static ones where activations
  vary; they follow, or lead where the net is recurrent or made of matrix products;
- weights in int8 or float16 alone are turned to float before anything is computed: smaller
  files that are seldom faster, so they are last.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from cloud_sync.evidence import Verdict
from hardware.runtimes.formats import ONNX, TFLITE

_SENSITIVE_SHARES = (0.05, 0.1, 0.2, 0.4)
_CLEARLY = 1.05  # times faster: more than quick races differ by luck
_LITERT_RANGES = ("minmax", "average")


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


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What judges: `samples` decide, within `max_drop`, at `confidence`.

    `judged` candidates of other families were judged on the same samples before.
    """

    samples: int
    max_drop: float
    confidence: float
    judged: int = 0


class Facts(Bounds, frozen=True, kw_only=True):
    """What of the model, the target and the data decides on the order of steps.

    `family` is the format of the files that are made. `flavours` are those of the target, the
    most promising first. `matrix_share` is the share of the weights that matrix products hold.
    `has_head` tells that ranges at the outputs differ so much that one scale cannot serve them.
    """

    family: str = ONNX
    flavours: tuple[str, ...]
    recurrent: bool = False
    convolutions: int = 0
    depthwise: bool = False
    matrix_share: float = 0.0
    has_head: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A move to make and time, and with a `confidence` to judge at that level."""

    move: Move
    confidence: float | None


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a step: it was refused, or not fast enough, or compared, or judged.

    `fidelity` is the ratio of signal to noise at the outputs, in dB; `speed` that of the fastest
    runtime, in inferences a millisecond.
    """

    step: Step
    refused: bool = False
    fast: bool = False
    speed: float = 0.0
    fidelity: float | None = None
    accuracy: Verdict | None = None


def next_step(facts: Facts, tried: Sequence[Tried]) -> Step | None:
    """The next step, or None where no promising one is left."""
    confidence = _next_confidence(facts, tried)
    if confidence is None or any(t.accuracy is Verdict.PASS for t in tried):
        return None
    refused = {t.step.move for t in tried if t.refused}
    # What cannot be equalised may run fast all the same.
    hopeless = {
        t.step.move.structure
        for t in tried
        if (not t.fast or t.refused) and not (t.refused and t.step.move.equalize)
    }
    judged = {t.step.move for t in tried if t.accuracy is not None}
    seen = {t.step.move for t in tried}
    for group in _groups(facts, tried):
        left = [m for m in group if m.structure not in hopeless and m not in refused]
        unseen = [move for move in left if move not in seen]
        if isinstance(group, _Timed):
            if unseen:
                return Step(move=unseen[0], confidence=None)
            continue
        if len(group) > 1 and unseen:
            return Step(move=unseen[0], confidence=None)
        if not left or judged & set(left):
            continue
        best = max(left, key=lambda move: _fidelity(tried, move))
        return Step(move=best, confidence=confidence)
    return None


def _next_confidence(facts: Facts, tried: Sequence[Tried]) -> float | None:
    """The level of the next judgement; None where no candidate could pass at it."""
    mine = sum(t.accuracy is not None for t in tried)
    error: float = (1 - facts.confidence) / 2 ** (facts.judged + mine)
    return None if mine and not _can_pass(facts, error) else 1 - error


def _can_pass(facts: Facts, error: float) -> bool:
    """Whether there are samples enough to pass at this error, were there no difference at all."""
    return (1 - facts.max_drop) ** facts.samples <= error


class _Timed(list[Move]):
    """Moves to be timed before any of the groups that follow is judged."""


def _groups(facts: Facts, tried: Sequence[Tried]) -> Iterator[list[Move]]:
    """Moves in the order of their promise; of those in one group, the most faithful is judged."""
    by_matrices = facts.recurrent or facts.matrix_share > 0.5  # noqa: PLR2004
    if by_matrices:
        yield [Move(kind=Kind.DYNAMIC)]
    if facts.family == TFLITE:
        yield from _litert(facts, tried, by_matrices=by_matrices)
        return
    if not facts.recurrent or facts.convolutions:
        for flavour in facts.flavours:
            yield from _static(flavour, facts, tried)
    if by_matrices:
        yield [Move(kind=Kind.WEIGHT_ONLY, bits=8)]
        yield [Move(kind=Kind.WEIGHT_ONLY, bits=4)]
    yield [Move(kind=Kind.FLOAT16)]


def _litert(facts: Facts, tried: Sequence[Tried], *, by_matrices: bool) -> Iterator[list[Move]]:
    for flavour in facts.flavours:
        ways = [Move(kind=Kind.STATIC, flavour=flavour, calibration=c) for c in _LITERT_RANGES]
        layers = [msgspec.structs.replace(move, layers=True) for move in ways]
        yield from _faster_first(ways, layers, facts, tried)
    if not by_matrices:
        yield [Move(kind=Kind.DYNAMIC)]
    yield [Move(kind=Kind.WEIGHT_ONLY, bits=8)]
    yield [Move(kind=Kind.FLOAT16)]


def _static(flavour: str, facts: Facts, tried: Sequence[Tried]) -> Iterator[list[Move]]:
    whole = Move(kind=Kind.STATIC, flavour=flavour)
    changed = msgspec.structs.replace
    percentile = changed(whole, calibration="percentile")

    def balanced(**structure: bool) -> Move:
        corrected = changed(percentile, bias_correction=True, **structure)
        equalized = changed(corrected, equalize=True)
        return corrected if _is_refused(tried, equalized) else equalized

    ranges = [whole, percentile, balanced(), changed(whole, calibration="entropy")]
    if facts.has_head:
        ranges += [changed(whole, head=True), balanced(head=True)]
    layers = [balanced(layers=True), changed(whole, layers=True)]
    yield from _faster_first(ranges, layers, facts, tried)
    best = max(ranges, key=lambda move: _fidelity(tried, move))
    if any(t.step.move == best and t.fast for t in tried):
        for share in _SENSITIVE_SHARES:
            yield [changed(best, sensitive=share)]


def _faster_first(
    whole: list[Move], layers: list[Move], facts: Facts, tried: Sequence[Tried]
) -> Iterator[list[Move]]:
    """Two structures, the one that proved faster first; `whole` where they are about equal."""
    if not _can_pass(facts, 1 - facts.confidence):
        yield whole + layers  # there is one judgement, and it is of what a person may accept
        return
    yield _Timed([whole[0], layers[0]])
    layers_lead = _speed(tried, layers[0]) > _CLEARLY * _speed(tried, whole[0])
    yield from (layers, whole) if layers_lead else (whole, layers)


def _is_refused(tried: Sequence[Tried], move: Move) -> bool:
    return any(t.refused for t in tried if t.step.move == move)


def _speed(tried: Sequence[Tried], move: Move) -> float:
    return max((t.speed for t in tried if t.step.move == move), default=0.0)


def _fidelity(tried: Sequence[Tried], move: Move) -> float:
    return max(
        (t.fidelity for t in tried if t.step.move == move and t.fidelity is not None),
        default=float("-inf"),
    )
