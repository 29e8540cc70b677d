"""The search carried out: moves are made, timed and judged, until none is left that may win.

One contest serves all targets that take the same flavours of integers. Each move's file is
timed first, beside the float model on each runtime, since that costs least and settles most;
only what is fast is executed on the evaluation data. What passes, and what a person may accept,
are the contenders; their last race decides.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict
from converters.arena import Arena, Lane, Timing
from converters.gates import metric_gate, speed_gate
from converters.loading import Loaded
from converters.methods import NotQuantizableError
from converters.progress import Progress
from converters.request import Request
from converters.search import Facts, Move, Step, Tried, next_step
from converters.workshop import Artifact, Workshop
from edgeml.errors import ModelError

_QUICK_S = 0.6
_FIDELITY_SAMPLES = 16
_FINAL_S = 1.0  # a lane
_TRIES = 3  # last races, while a speed gate is undecided
_MARGIN = 0.95  # of the speed-up that is asked for: what noise may hide in a quick race


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one move, for the report.

    `fidelity` is the ratio of signal to noise at the outputs in dB, on calibration data;
    `speedups` and `accuracy` are by runtime.
    """

    move: str
    artifact: str = ""
    bytes: int = 0
    nodes: int = 0
    refused: str = ""
    fidelity: float | None = None
    speedups: dict[str, float] = {}
    accuracy: dict[str, GateResult] = {}

    @property
    def outcome(self) -> str:
        """One clause for people."""
        if self.refused:
            return self.refused.rstrip(".")
        if self.accuracy:
            return "; ".join(gate.reason.rstrip(".") for gate in self.accuracy.values())
        if self.fidelity is None:
            return f"{max(self.speedups.values(), default=0.0):.2f} x the speed of float32"
        return f"{self.fidelity:.1f} dB of signal to noise; another was more faithful"


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A lane that may become a variant, with its gates beside the float model's lane."""

    lane: Lane
    move: str
    accuracy: GateResult
    speed: GateResult


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """A contest's outcome: best contenders first, every attempt, and all last timings by lane."""

    contenders: tuple[Contender, ...]
    attempts: tuple[Attempt, ...]
    timings: dict[str, Timing]


class Contestants:
    """Runs one contest.

    Args:
        workshop: makes the files.
        arena: executes them.
        loaded: model, metric and data.
        request: the bounds that the gates keep.
        progress: told what is tried and the best so far.
    """

    def __init__(
        self, workshop: Workshop, arena: Arena, loaded: Loaded, request: Request, progress: Progress
    ) -> None:
        self._workshop = workshop
        self._arena = arena
        self._loaded = loaded
        self._request = request
        self._progress = progress

    def search(self, flavours: Sequence[str], runtimes: Sequence[str]) -> Contest:
        """Find the contenders among all that int8, or less, can be here."""
        facts = self._facts(flavours)
        tried: list[Tried] = []
        attempts: dict[Move, Attempt] = {}
        artifacts: dict[Move, Artifact] = {}
        while facts is not None and (step := next_step(facts, tried)) is not None:
            before = attempts.get(step.move)
            if before is None:
                self._progress.step(f"Trying {step.move}")
                before = self._make(step.move, runtimes, attempts, artifacts)
            attempt = before
            if step.confidence is not None and step.move in artifacts and _fast(before):
                attempt = self._judge(step, artifacts[step.move], before)
            attempts[step.move] = attempt
            tried.append(_tried(step, attempt))
            self._progress.note(_told(attempt))
        passing = [(artifacts[move], a) for move, a in attempts.items() if a.accuracy]
        return self._last_race(passing, tuple(attempts.values()), runtimes)

    def replay(self, lanes: Sequence[Lane], runtimes: Sequence[str]) -> Contest:
        """Judge and time lanes that a recipe decided on."""
        attempts: list[Attempt] = []
        passing: list[tuple[Artifact, Attempt]] = []
        for artifact in {lane.artifact.key: lane.artifact for lane in lanes}.values():
            mine = [lane.runtime for lane in lanes if lane.artifact.key == artifact.key]
            accuracy = {
                runtime: self._accuracy(Lane(artifact, runtime), self._request.confidence)
                for runtime in mine
            }
            attempt = Attempt(
                move="as the recipe says",
                artifact=artifact.digest,
                bytes=artifact.size,
                nodes=artifact.nodes,
                accuracy=accuracy,
            )
            attempts.append(attempt)
            passing.append((artifact, attempt))
        return self._last_race(passing, attempts, runtimes)

    def _facts(self, flavours: Sequence[str]) -> Facts | None:
        try:
            return self._workshop.facts(
                flavours,
                samples=len(self._loaded.evaluation),
                max_drop=self._request.max_drop,
                confidence=self._request.confidence,
            )
        except NotQuantizableError as error:
            self._progress.note(f"{error}")
            return None

    def _make(
        self,
        move: Move,
        runtimes: Sequence[str],
        attempts: dict[Move, Attempt],
        artifacts: dict[Move, Artifact],
    ) -> Attempt:
        """Make a move's file, time it once a structure, and compare its outputs with float's."""
        try:
            artifact = self._workshop.make(self._workshop.rules(move))
        except NotQuantizableError as error:
            return Attempt(move=str(move), refused=str(error))
        made = Attempt(
            move=str(move), artifact=artifact.digest, bytes=artifact.size, nodes=artifact.nodes
        )
        replaced = msgspec.structs.replace
        if any(attempt.artifact == artifact.digest for attempt in attempts.values()):
            return replaced(made, refused="It is the same file as one tried before.")
        alike = [m for m in artifacts if m.structure == move.structure]
        speedups = attempts[alike[0]].speedups if alike else {}
        reasons = []
        for runtime in () if alike else runtimes:
            try:
                speedups = speedups | {runtime: self._speedup(Lane(artifact, runtime))}
            except ModelError as error:
                reasons.append(f"{runtime}: {error}")
        if not speedups:
            return replaced(made, refused=" ".join(reasons))
        artifacts[move] = artifact
        fast = {r: s for r, s in speedups.items() if s >= self._request.min_speedup * _MARGIN}
        if not fast:
            return replaced(made, speedups=speedups)
        best = Lane(artifact, max(fast, key=lambda runtime: fast[runtime]))
        feeds = list(self._workshop.feeds(_FIDELITY_SAMPLES))
        fidelity = self._arena.fidelity(best, self._workshop.float, feeds)
        return replaced(made, speedups=speedups, fidelity=fidelity)

    def _judge(self, step: Step, artifact: Artifact, attempt: Attempt) -> Attempt:
        """Execute a fast file on the evaluation data, on each runtime where it is fast."""
        assert step.confidence is not None
        least = self._request.min_speedup * _MARGIN
        accuracy = {
            runtime: self._accuracy(Lane(artifact, runtime), step.confidence)
            for runtime, speedup in attempt.speedups.items()
            if speedup >= least
        }
        return msgspec.structs.replace(attempt, accuracy=accuracy)

    def _speedup(self, lane: Lane) -> float:
        """How many times faster than float on the same runtime, in a quick race."""
        baseline = Lane(self._workshop.float, lane.runtime)
        times = self._arena.time([baseline, lane], seconds=_QUICK_S)
        ratio = np.divide(times[baseline.key].milliseconds, times[lane.key].milliseconds)
        return float(np.median(ratio))

    def _accuracy(self, lane: Lane, confidence: float) -> GateResult:
        baseline = self._workshop.float
        wanted = self._arena.judge(Lane(baseline, lane.runtime), baseline)
        given = self._arena.judge(lane, baseline)
        return metric_gate(
            self._loaded.metric,
            wanted.outcomes,
            given.outcomes,
            max_drop=self._request.max_drop,
            confidence=confidence,
        )

    def _last_race(
        self,
        passing: Sequence[tuple[Artifact, Attempt]],
        attempts: Sequence[Attempt],
        runtimes: Sequence[str],
    ) -> Contest:
        floats = [Lane(self._workshop.float, runtime) for runtime in runtimes]
        chosen: list[tuple[Lane, str, GateResult]] = []
        for runtime in runtimes:
            mine = [pair for pair in passing if runtime in pair[1].accuracy]
            mine.sort(key=lambda pair: _order(pair[1], runtime))
            chosen += [
                (Lane(artifact, runtime), attempt.move, attempt.accuracy[runtime])
                for artifact, attempt in mine[:1]
            ]
        lanes = [*floats, *(lane for lane, _, _ in chosen)]
        self._progress.step(f"Racing {len(lanes)} lanes")
        timings: dict[str, Timing] = {}
        contenders: list[Contender] = []
        for turn in range(_TRIES):
            timings = lap = self._arena.time(lanes, seconds=(1 + turn) * _FINAL_S * len(lanes))
            contenders = [
                Contender(
                    lane=lane,
                    move=move,
                    accuracy=accuracy,
                    speed=speed_gate(
                        np.array(lap[f"{self._workshop.float.key}@{lane.runtime}"].milliseconds),
                        np.array(lap[lane.key].milliseconds),
                        min_speedup=self._request.min_speedup,
                        confidence=self._request.confidence,
                    ),
                )
                for lane, move, accuracy in chosen
            ]
            if all(c.speed.result is not Verdict.UNDECIDED for c in contenders):
                break
        contenders.sort(key=lambda c: float(np.median(timings[c.lane.key].milliseconds)))
        return Contest(contenders=tuple(contenders), attempts=tuple(attempts), timings=timings)


def nothing_raced(attempts: Sequence[Attempt]) -> str:
    """Why no quantization was judged: the sentence for people."""
    timed = [attempt for attempt in attempts if attempt.speedups]
    if not timed:
        reasons = "; ".join(f"{a.move}: {a.outcome}" for a in attempts)
        return f"it cannot be quantized: {reasons or 'it has nothing that could be'}."
    best = max(timed, key=lambda attempt: max(attempt.speedups.values()))
    return (
        f"it is not shown to be faster: the best of {len(timed)} quantizations, {best.move}, "
        f"runs at {max(best.speedups.values()):.2f} x the speed of float32."
    )


def _fast(attempt: Attempt) -> bool:
    return attempt.fidelity is not None


def _tried(step: Step, attempt: Attempt) -> Tried:
    verdicts = {gate.result for gate in attempt.accuracy.values()}
    best = next((v for v in (Verdict.PASS, Verdict.UNDECIDED) if v in verdicts), None)
    return Tried(
        step=step,
        refused=bool(attempt.refused),
        fast=_fast(attempt),
        fidelity=attempt.fidelity,
        accuracy=best or (Verdict.FAIL if verdicts else None),
    )


def _told(attempt: Attempt) -> str:
    if attempt.fidelity is None:
        return f"{attempt.move}: {attempt.outcome}."
    speeds = [f"{speed:.2f} x float32 on {name}" for name, speed in attempt.speedups.items()]
    said = f"{attempt.move}: {', '.join(speeds)}, {attempt.fidelity:.1f} dB of signal to noise"
    return f"{said}; accuracy: {attempt.outcome}." if attempt.accuracy else f"{said}."


def _order(attempt: Attempt, runtime: str) -> tuple[int, float]:
    """Passing before undecided before failing, then the faster."""
    rank = {Verdict.PASS: 0, Verdict.UNDECIDED: 1, Verdict.FAIL: 2}
    return rank[attempt.accuracy[runtime].result], -attempt.speedups.get(runtime, 0.0)
