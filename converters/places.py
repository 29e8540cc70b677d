"""The places where candidates are executed: this machine, and emulators of other processors."""

from types import TracebackType
from typing import Self

import msgspec
import onnx

from cloud_sync.golden import GoldenSet, Recorded
from converters.arena import Arena
from converters.cache import Cache
from converters.calibration import Calibration
from converters.candidates import Candidate, emulated_candidate
from converters.emulated import Emulator, no_speed
from converters.executor import Executor, LocalExecutor
from converters.golden import compiled_outputs, recorded_outputs
from converters.loading import Loaded
from converters.plan import EMULATED_RUNTIMES
from converters.progress import Progress
from converters.recipe import INT8
from converters.request import Request
from converters.toolchains import emulation
from converters.toolchains.saturation import (
    SaturationEvidence,
    risky_layers,
    saturation_evidence,
)
from converters.workshop import Artifact
from edgeml.errors import ModelError
from hardware.capabilities import Capabilities, Cpu
from hardware.profiles import TargetProfile
from hardware.runtimes.formats import ONNX

_SATURATION_SAMPLES = 8


class Places:
    """Arenas of one conversion: `here`, and one for each processor that is emulated.

    Args:
        executor: starts what runs here.
        loaded: the data that judge, and the plan of what is emulated.
        cache: keeps what was measured.
        progress: told what is executed.
    """

    def __init__(
        self, executor: Executor, loaded: Loaded, cache: Cache, progress: Progress
    ) -> None:
        self.here = Arena(executor, loaded, cache, progress)
        self._loaded = loaded
        self._cache = cache
        self._progress = progress
        self._emulated: dict[str, Arena] = {}
        self._saturations: dict[str, SaturationEvidence | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for arena in (self.here, *self._emulated.values()):
            arena.close()

    def checked(self, candidate: Candidate, baseline: Artifact, request: Request) -> Candidate:
        """A candidate as far as it can be checked for its target: here, or emulated.

        Args:
            candidate: as it was judged here.
            baseline: the float model.
            request: the bounds that the gates keep.
        """
        plan = self._loaded.plan
        target, lane = candidate.target, candidate.lane
        candidate = msgspec.structs.replace(
            candidate, verification=plan.verification_of(target, lane.runtime)
        )
        if plan.may_saturate(target, lane.runtime):
            candidate = msgspec.structs.replace(
                candidate, saturation=self._saturation(lane.artifact)
            )
        cpu = plan.emulated.get(target.name)
        if cpu is None or lane.runtime not in EMULATED_RUNTIMES:
            return candidate
        emulator = Emulator(
            self.here,
            self._emulated_arena(target),
            cpu=cpu,
            loaded=self._loaded,
            cache=self._cache,
            progress=self._progress,
        )
        confidence = candidate.gates[0].confidence if candidate.gates else None
        found = emulator.verify(
            lane,
            baseline,
            max_drop=request.max_drop,
            confidence=confidence or request.confidence,
            saturates=target.architecture == "amd64" and _is_at_risk(lane.artifact),
        )
        speed = no_speed(cpu, request.min_speedup) if target.name in plan.foreign else None
        return emulated_candidate(candidate, found, speed)

    def recordings(self, candidate: Candidate, golden: GoldenSet) -> list[Recorded]:
        """What a variant answers to the golden set, on each processor that executes it."""
        plan, target, lane = self._loaded.plan, candidate.target, candidate.lane
        if candidate.compiled is not None:
            task, host = self._loaded.task, self._loaded.host
            with candidate.compiled.execution() as execution:
                return [compiled_outputs(execution, task, golden, candidate.compiled, host)]
        places: list[tuple[Arena, Capabilities]] = []
        if target.name not in plan.foreign:
            places.append((self.here, self._loaded.host))
        if target.name in plan.emulated and lane.runtime in EMULATED_RUNTIMES:
            there = Capabilities(
                architecture=target.architecture,
                cpu=Cpu(features=tuple(f.split("|")[0] for f in target.cpu_features)),
            )
            places.append((self._emulated_arena(target), there))
        made = []
        for arena, host in places:
            with arena.opened(lane) as session:
                made.append(
                    recorded_outputs(
                        session,
                        self._loaded.task,
                        golden,
                        precision=lane.artifact.weights,
                        host=host,
                        is_emulated=arena is not self.here,
                    )
                )
        return made

    def _saturation(self, artifact: Artifact) -> SaturationEvidence | None:
        """What a file is expected to lose without VNNI, told where it is anything."""
        if artifact.digest not in self._saturations:
            found = None
            samples = list(Calibration(self._loaded, self._progress).first(_SATURATION_SAMPLES))
            try:
                found = saturation_evidence(artifact.path, samples)
            except ModelError as error:
                self._progress.note(f"Saturation without VNNI is not known: {error}")
            if found is not None:
                self._progress.note(f"{artifact.quantization}: {found}")
            self._saturations[artifact.digest] = found
        return self._saturations[artifact.digest]

    def _emulated_arena(self, target: TargetProfile) -> Arena:
        cpu = self._loaded.plan.emulated[target.name]
        if cpu not in self._emulated:
            command = emulation.command(target.architecture, cpu)
            executor = LocalExecutor(command, name=f"emulated {cpu}")
            self._emulated[cpu] = Arena(executor, self._loaded, self._cache, self._progress)
        return self._emulated[cpu]


def _is_at_risk(artifact: Artifact) -> bool:
    """Whether an 8-bit file's weights let sums of two products exceed 16 bits."""
    is_int8 = artifact.format == ONNX and artifact.precision == INT8
    return is_int8 and bool(risky_layers(onnx.load(artifact.path)))
