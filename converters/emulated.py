"""Candidates executed on the instructions of another processor, under an emulator.

What is compared first is bits. The whole evaluation set is executed there where a small model
allows it, else as many samples of it, evenly spread, as the emulator gets through. Where every
output is the one that this machine gives, the verdict of this machine holds there: of all samples
that is certain, of n samples it is shown that outputs differ on no more than about 3 / n of all
others (95 %), and for sums that cannot saturate the arithmetic leaves no reason why they should.
Where outputs differ, or could by saturation on samples that were not executed, the answers given
there are judged by themselves. Times taken there mean nothing, and none is kept.
"""

import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict
from converters.arena import EVALUATOR, Arena
from converters.cache import Cache
from converters.executor import RemoteSession
from converters.gates import metric_gate
from converters.golden import spread
from converters.lanes import Lane
from converters.loading import Loaded
from converters.progress import Progress
from converters.tools import tool_versions
from converters.workshop import Artifact
from hardware.probes import instruction_set

_SECONDS = 45.0  # about, of answers that are judged
_EQUAL_SECONDS = 20.0  # of answers that are all equal; more where these are fewer than enough
_ENOUGH_EQUAL = 300  # with 95 % confidence less than 1 % of others differ
_CONFIDENCE = 0.95


class Emulated(msgspec.Struct, frozen=True, kw_only=True):
    """What running `n` samples of `of` under emulation of `cpu` showed; `equal` gave the same bits.

    `accuracy` is the gate on the answers given there, None where the verdict of this machine
    holds there.
    """

    cpu: str
    n: int
    of: int
    equal: int
    accuracy: GateResult | None = None

    @property
    def differ_at_most(self) -> float:
        """The share of samples whose bits may differ at 95 % confidence, where none was seen to."""
        return 0.0 if self.n == self.of else 1 - float((1 - _CONFIDENCE) ** (1 / self.n))

    def gate(self, native: GateResult) -> GateResult:
        """The accuracy gate for that processor, given the one of this machine."""
        if self.accuracy is None:
            said = f"{native.reason} Emulated {self.cpu} gave the same bits on "
            said += (
                f"all {self.n} samples."
                if self.n == self.of
                else (
                    f"{self.n} samples, evenly taken of {self.of}: at {100 * _CONFIDENCE:g} % "
                    f"confidence it gives other ones on at most {100 * self.differ_at_most:.1f} %."
                )
            )
            return msgspec.structs.replace(native, reason=said)
        said = (
            f"Emulated {self.cpu} gave other bits on {self.n - self.equal} of {self.n} samples; "
            f"judged there: {self.accuracy.reason}"
        )
        return msgspec.structs.replace(self.accuracy, reason=said)


def no_speed(cpu: str, min_speedup: float) -> GateResult:
    """The speed gate where no such processor is here."""
    return GateResult(
        name="speedup",
        result=Verdict.UNDECIDED,
        bound=min_speedup,
        unit="x float32",
        reason=f"No {cpu} is here, and an emulator's times mean nothing: a device must tell.",
    )


class _Answer(msgspec.Struct, frozen=True):
    """What the metric made of an emulated answer, and whether it is this machine's, bit for bit."""

    outcome: Any
    equal: bool


_Both = tuple[RemoteSession, RemoteSession]  # of this machine, and of the emulator


class Emulator:
    """Compares lanes here with the same lanes under emulation.

    Args:
        native: executes here.
        emulated: executes under the emulator.
        cpu: the processor's name.
        loaded: the data that judge.
        cache: keeps what was found.
        progress: told what is executed.
    """

    def __init__(
        self,
        native: Arena,
        emulated: Arena,
        *,
        cpu: str,
        loaded: Loaded,
        cache: Cache,
        progress: Progress,
    ) -> None:
        self._native = native
        self._emulated = emulated
        self._cpu = cpu
        self._loaded = loaded
        self._cache = cache
        self._progress = progress

    def verify(
        self,
        lane: Lane,
        baseline: Artifact,
        *,
        max_drop: float,
        confidence: float,
        saturates: bool = False,
    ) -> Emulated:
        """Execute a lane on evaluation samples here and there.

        Args:
            lane: what is executed.
            baseline: the float model.
            max_drop: that the accuracy gate allows.
            confidence: of that gate.
            saturates: whether it depends on the sample that sums are exact there: then equal
                bits on some of the samples say nothing of the others.

        Raises:
            ModelError: the runtime cannot run it under emulation.
        """
        inputs = self._loaded.inputs
        parts = [
            *(EVALUATOR, self._cpu, lane.artifact.digest, baseline.digest, lane.runtime),
            *(inputs.evaluation, inputs.pipeline, self._loaded.metric.identity),
            *(max_drop, confidence, saturates, tool_versions()),
            *(self._loaded.host.cpu.model, instruction_set(self._loaded.host)),
        ]
        known = self._cache.get("emulated", parts)
        if known is not None:
            return msgspec.msgpack.decode(known, type=Emulated)
        found = self._compare(
            lane, baseline, max_drop=max_drop, confidence=confidence, saturates=saturates
        )
        self._cache.put("emulated", parts, msgspec.msgpack.encode(found))
        return found

    def _compare(
        self,
        lane: Lane,
        baseline: Artifact,
        *,
        max_drop: float,
        confidence: float,
        saturates: bool,
    ) -> Emulated:
        metric = self._loaded.metric
        judged = self._native.judge(Lane(baseline, lane.runtime), baseline)
        found = [index for index, inferred in enumerate(judged.found) if inferred]
        with self._native.opened(lane) as here, self._emulated.opened(lane) as there:
            both = (here, there)
            each = self._seconds_each(both, found[0])
            most = _affordable(_SECONDS, each)
            some = max(_affordable(_EQUAL_SECONDS, each), min(_ENOUGH_EQUAL, most))
            answered = self._answered(both, spread(found, most if saturates else some), lane)
            if not all(answer.equal for answer in answered.values()):
                more = [index for index in spread(found, most) if index not in answered]
                answered |= self._answered(both, more, lane) if more else {}
        n, equal = len(answered), sum(answer.equal for answer in answered.values())
        told = Emulated(cpu=self._cpu, n=n, of=len(found), equal=equal)
        if equal == n and (n == len(found) or not saturates):
            return told
        gate = metric_gate(
            metric,
            [judged.outcomes[index] for index in answered],
            [answer.outcome for answer in answered.values()],
            max_drop=max_drop,
            confidence=confidence,
        )
        return msgspec.structs.replace(told, accuracy=gate)

    def _seconds_each(self, both: _Both, index: int) -> float:
        """How long a sample takes on both, once they are warm."""
        sample = next(islice(self._loaded.evaluation, index, None))
        begun = 0.0
        for _ in range(2):
            begun = time.perf_counter()
            tensors = self._loaded.task.prepare(sample)
            assert tensors is not None, "something was inferred in it before"
            for session in both:
                session.run(tensors)
        return time.perf_counter() - begun

    def _answered(self, both: _Both, wanted: Sequence[int], lane: Lane) -> dict[int, _Answer]:
        """What both answer to some samples, by the samples' numbers."""
        loaded, (here, there) = self._loaded, both
        chosen = set(wanted)
        answered: dict[int, _Answer] = {}
        self._progress.step(f"Emulating {self._cpu}: {lane.key}", len(chosen))
        for index, sample in enumerate(loaded.evaluation):
            tensors = loaded.task.prepare(sample) if index in chosen else None
            if tensors is None:
                continue
            outputs, own = there.run(tensors), here.run(tensors)
            outcome = loaded.metric.outcome(outputs, loaded.evaluation.label(index), own)
            answered[index] = _Answer(outcome, all(map(np.array_equal, outputs, own)))
            self._progress.advance(len(answered))
        return answered


def _affordable(seconds: float, each: float) -> int:
    return max(1, int(seconds / each))
