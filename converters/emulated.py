"""Candidates executed on the instructions of another processor, under an emulator.

What is compared first is bits: where every output is the one that this machine gives, all that
was judged here holds there. Where they differ (sums that saturate without VNNI), the answers
given under emulation are judged, as many as its slowness allows. Times taken there mean
nothing, and none is kept.
"""

import time

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict
from converters.arena import EVALUATOR, Arena, Lane
from converters.cache import Cache
from converters.gates import metric_gate
from converters.golden import spread
from converters.loading import Loaded
from converters.progress import Progress
from converters.tools import tool_versions
from converters.workshop import Artifact
from hardware.probes import instruction_set

_SECONDS = 45.0
_MOST_SAMPLES = 400
_ENOUGH_EQUAL = 48


class Emulated(msgspec.Struct, frozen=True, kw_only=True):
    """What running `n` samples under emulation of `cpu` showed; `equal` gave the same bits.

    `accuracy` is the gate on the answers given there, None where all bits were the same.
    """

    cpu: str
    n: int
    equal: int
    accuracy: GateResult | None = None

    def gate(self, native: GateResult) -> GateResult:
        """The accuracy gate for that processor, given the one of this machine."""
        if self.accuracy is None:
            said = f"{native.reason} Emulated {self.cpu} gave the same bits on {self.n} samples."
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

        Where sums cannot saturate, equal bits follow from the arithmetic, and a few samples
        show that nothing else differs.

        Args:
            lane: what is executed.
            baseline: the float model.
            max_drop: that the accuracy gate allows.
            confidence: of that gate.
            saturates: whether it depends on the sample that sums are exact there: then all are
                compared, as far as there is time.

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
        loaded = self._loaded
        judged = self._native.judge(Lane(baseline, lane.runtime), baseline)
        found = [index for index, inferred in enumerate(judged.found) if inferred]
        wanted = set(spread(found, _MOST_SAMPLES))
        self._progress.step(f"Emulating {self._cpu}: {lane.key}", len(wanted))
        before, after, equal = [], [], 0
        begun = time.perf_counter()
        with self._native.opened(lane) as here, self._emulated.opened(lane) as there:
            for index, sample in enumerate(loaded.evaluation):
                tensors = loaded.task.prepare(sample) if index in wanted else None
                if tensors is None:
                    continue
                outputs, own = there.run(tensors), here.run(tensors)
                equal += all(map(np.array_equal, outputs, own))
                before.append(judged.outcomes[index])
                after.append(loaded.metric.outcome(outputs, loaded.evaluation.label(index), own))
                self._progress.advance(len(after))
                if equal == len(after) >= _ENOUGH_EQUAL and not saturates:
                    break
                if time.perf_counter() - begun > _SECONDS:
                    break
        if equal == len(after):
            return Emulated(cpu=self._cpu, n=len(after), equal=equal)
        gate = metric_gate(loaded.metric, before, after, max_drop=max_drop, confidence=confidence)
        return Emulated(cpu=self._cpu, n=len(after), equal=equal, accuracy=gate)
