"""The search carried out: moves are made, timed and judged, until none is left that may win.

One contest serves all targets that take the same flavours of integers. Runtimes that execute
files of the same format are searched for together, the others apart. Each move's file is
timed first, beside the float model on each runtime, since that costs least and settles most;
only what is fast is executed on the evaluation data. What passes, and what a person may accept,
are the contenders; their last race decides.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict
from converters.arena import Arena
from converters.gates import metric_gate
from converters.lanes import Lane, Timing
from converters.last_race import Entry, last_race
from converters.limits import limit_gate
from converters.loading import Loaded
from converters.methods import NotQuantizableError
from converters.progress import Progress
from converters.quick_race import is_fast, quick_race
from converters.request import Request
from converters.search import Bounds, Facts, Move, Step, Tried, next_step
from converters.workshop import Artifact, Family, Workshop
from edgeml.errors import ModelError, ToolchainError
from hardware.runtimes.formats import ONNX, TFLITE

_FIDELITY_SAMPLES = 16


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one move, for the report.

    `family` is the format of its file. `fidelity` is the ratio of signal to noise at the
    outputs in dB, on calibration data; `speedups` and `accuracy` are by runtime, `speed` is the
    fastest runtime's, in inferences a millisecond. `refused` says why nothing could run it,
    `missing_tool` which toolchain it takes, `failed` by runtime why that one could not, while
    another could.
    """

    move: str
    family: str = ONNX
    artifact: str = ""
    bytes: int = 0
    nodes: int = 0
    refused: str = ""
    missing_tool: str = ""
    failed: dict[str, str] = {}
    fidelity: float | None = None
    speedups: dict[str, float] = {}
    speed: float = 0.0
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


class _Found(msgspec.Struct, frozen=True):
    """What came of one family's search: every attempt, and the files that were judged."""

    attempts: tuple[Attempt, ...]
    passing: tuple[tuple[Artifact, Attempt], ...]
    judgements: int


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
        self._asked = request.min_speedup
        self._searched: dict[tuple[Facts, tuple[str, ...], int | None], _Found] = {}

    def search(
        self, flavours: Sequence[str], runtimes: Sequence[str], most_bytes: int | None = None
    ) -> Contest:
        """Find the contenders among all that int8, or less, can be here.

        Args:
            flavours: of integers, the most promising first.
            runtimes: to race on.
            most_bytes: what a file may have at most; None for no limit.
        """
        self._workshop.settle()
        families: dict[str, list[str]] = {}
        for runtime in runtimes:
            families.setdefault(self._workshop.family_of(runtime).format, []).append(runtime)
        found: list[_Found] = []
        for mine in families.values():
            judged = sum(each.judgements for each in found)
            found.append(self._search_family(flavours, mine, judged, most_bytes))
        attempts = [attempt for each in found for attempt in each.attempts]
        return self._last_race([p for each in found for p in each.passing], attempts, runtimes)

    def _search_family(
        self,
        flavours: Sequence[str],
        runtimes: Sequence[str],
        judged: int,
        most_bytes: int | None,
    ) -> _Found:
        """Search among the files of one format, for the runtimes that execute them."""
        family = self._workshop.family_of(runtimes[0])
        facts = self._facts(family, flavours, judged)
        if facts is None:
            return _Found((), (), 0)
        asked = (facts, tuple(runtimes), most_bytes)
        if asked not in self._searched:  # targets may differ in what this family knows not of
            self._searched[asked] = self._carry_out(facts, family, runtimes, most_bytes)
        return self._searched[asked]

    def _carry_out(
        self, facts: Facts, family: Family, runtimes: Sequence[str], most_bytes: int | None
    ) -> _Found:
        tried: list[Tried] = []
        attempts: dict[Move, Attempt] = {}
        artifacts: dict[Move, Artifact] = {}
        while (step := next_step(facts, tried)) is not None:
            before = attempts.get(step.move)
            if before is None:
                self._progress.step(f"Trying {_name(step.move, family)}")
                try:
                    before = self._make(
                        family, step.move, runtimes, attempts, artifacts, most_bytes=most_bytes
                    )
                except ToolchainError as error:  # the next move would need it as well
                    name = _name(step.move, family)
                    refused = Attempt(
                        move=name,
                        family=family.format,
                        refused=str(error),
                        missing_tool=f"no quantization was tried: {error}",
                    )
                    attempts[step.move] = refused
                    self._progress.note(_told(refused))
                    break
            attempt = before
            if step.confidence is not None and step.move in artifacts and _fast(before):
                attempt = self._judge(step, artifacts[step.move], before)
            attempts[step.move] = attempt
            tried.append(_tried(step, attempt))
            self._progress.note(_told(attempt))
        return _Found(
            attempts=tuple(attempts.values()),
            passing=tuple((artifacts[m], a) for m, a in attempts.items() if a.accuracy),
            judgements=sum(t.accuracy is not None for t in tried),
        )

    def replay(self, lanes: Sequence[Lane], runtimes: Sequence[str]) -> Contest:
        """Judge and time lanes that a recipe decided on."""
        attempts: list[Attempt] = []
        passing: list[tuple[Artifact, Attempt]] = []
        for artifact in {lane.artifact.digest: lane.artifact for lane in lanes}.values():
            mine = [lane.runtime for lane in lanes if lane.artifact.digest == artifact.digest]
            accuracy = {
                runtime: self._accuracy(Lane(artifact, runtime), self._request.confidence)
                for runtime in mine
            }
            attempt = Attempt(
                move="as the recipe says",
                family=artifact.format,
                artifact=artifact.digest,
                bytes=artifact.size,
                nodes=artifact.nodes,
                accuracy=accuracy,
            )
            attempts.append(attempt)
            passing.append((artifact, attempt))
        return self._last_race(passing, attempts, runtimes)

    def _facts(self, family: Family, flavours: Sequence[str], judged: int) -> Facts | None:
        bounds = Bounds(
            samples=len(self._loaded.evaluation),
            max_drop=self._request.max_drop,
            confidence=self._request.confidence,
            judged=judged,
        )
        try:
            return family.facts(flavours, bounds)
        except NotQuantizableError as error:
            self._progress.note(f"{error}")
            return None

    def _make(
        self,
        family: Family,
        move: Move,
        runtimes: Sequence[str],
        attempts: dict[Move, Attempt],
        artifacts: dict[Move, Artifact],
        *,
        most_bytes: int | None,
    ) -> Attempt:
        """Make a move's file, time it once a structure, and compare its outputs with float's."""
        replaced = msgspec.structs.replace
        made = Attempt(move=_name(move, family), family=family.format)
        try:
            artifact = family.make(family.rules(move))
        except NotQuantizableError as error:
            return replaced(made, refused=str(error))
        made = replaced(made, artifact=artifact.digest, bytes=artifact.size, nodes=artifact.nodes)
        if any(attempt.artifact == artifact.digest for attempt in attempts.values()):
            return replaced(made, refused="It is the same file as one tried before.")
        if most_bytes is not None and artifact.size > most_bytes:
            too_large = limit_gate("size", artifact.size, most_bytes, "bytes")
            return replaced(made, refused=too_large.reason)
        alike = [m for m in artifacts if m.structure == move.structure]
        speedups = attempts[alike[0]].speedups if alike else {}
        speed = attempts[alike[0]].speed if alike else 0.0
        failed = dict(attempts[alike[0]].failed) if alike else {}
        for runtime in () if alike else runtimes:
            try:
                baseline = Lane(self._workshop.float_on(runtime), runtime)
                lane = Lane(artifact, runtime)
                quick = quick_race(self._arena, baseline, lane, min_speedup=self._asked)
                speedups = speedups | {runtime: quick.speedup}
                speed = max(speed, 1 / quick.milliseconds)
            except ModelError as error:
                failed[runtime] = str(error)
        if not speedups:
            reasons = [f"{runtime}: {reason}" for runtime, reason in failed.items()]
            return replaced(made, refused=" ".join(reasons), failed=failed)
        artifacts[move] = artifact
        made = replaced(made, speedups=speedups, speed=speed, failed=failed)
        fast = {r: s for r, s in speedups.items() if is_fast(s, self._asked)}
        if not fast:
            return made
        best = Lane(artifact, max(fast, key=lambda runtime: fast[runtime]))
        feeds = list(self._workshop.feeds(_FIDELITY_SAMPLES))
        fidelity = self._arena.fidelity(best, family.float, feeds)
        return replaced(made, fidelity=fidelity)

    def _judge(self, step: Step, artifact: Artifact, attempt: Attempt) -> Attempt:
        """Execute a fast file on the evaluation data, on each runtime where it is fast."""
        assert step.confidence is not None
        accuracy: dict[str, GateResult] = {}
        failed = dict(attempt.failed)
        for runtime in (r for r, s in attempt.speedups.items() if is_fast(s, self._asked)):
            try:
                accuracy[runtime] = self._accuracy(Lane(artifact, runtime), step.confidence)
            except ModelError as error:
                failed[runtime] = str(error)
        refused = "" if accuracy else " ".join(f"{r}: {reason}" for r, reason in failed.items())
        return msgspec.structs.replace(attempt, accuracy=accuracy, failed=failed, refused=refused)

    def _accuracy(self, lane: Lane, confidence: float) -> GateResult:
        baseline = self._workshop.float_on(lane.runtime)
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
        floats = {r: Lane(self._workshop.float_on(r), r) for r in runtimes}
        chosen: dict[Lane, Attempt] = {}
        for runtime in runtimes:
            mine = [pair for pair in passing if runtime in pair[1].accuracy]
            mine.sort(key=lambda pair: _order(pair[1], runtime))
            chosen |= {Lane(artifact, runtime): attempt for artifact, attempt in mine[:1]}
        lanes = [*floats.values(), *chosen]
        self._workshop.settle()
        self._progress.step(f"Racing {len(lanes)} lanes")
        timings, speeds = last_race(
            self._arena,
            {
                lane: Entry(floats[lane.runtime], attempt.speedups.get(lane.runtime))
                for lane, attempt in chosen.items()
            },
            lanes,
            min_speedup=self._request.min_speedup,
            confidence=self._request.confidence,
        )
        contenders = [
            Contender(
                lane=lane,
                move=attempt.move,
                accuracy=attempt.accuracy[lane.runtime],
                speed=speeds[lane.key],
            )
            for lane, attempt in chosen.items()
        ]
        contenders.sort(key=lambda c: float(np.median(timings[c.lane.key].milliseconds)))
        return Contest(contenders=tuple(contenders), attempts=tuple(attempts), timings=timings)


def _name(move: Move, family: Family) -> str:
    return f"{move} (.tflite)" if family.format == TFLITE else str(move)


def _fast(attempt: Attempt) -> bool:
    return attempt.fidelity is not None


def _tried(step: Step, attempt: Attempt) -> Tried:
    verdicts = {gate.result for gate in attempt.accuracy.values()}
    best = next((v for v in (Verdict.PASS, Verdict.UNDECIDED) if v in verdicts), None)
    return Tried(
        step=step,
        refused=bool(attempt.refused),
        fast=_fast(attempt),
        speed=attempt.speed,
        fidelity=attempt.fidelity,
        accuracy=best or (Verdict.FAIL if verdicts else None),
    )


def _told(attempt: Attempt) -> str:
    failed = "".join(f" Not on {name}: {why}" for name, why in attempt.failed.items())
    if attempt.refused:
        return f"{attempt.move}: {attempt.outcome}."
    if attempt.fidelity is None:
        return f"{attempt.move}: {attempt.outcome}.{failed}"
    speeds = [f"{speed:.2f} x float32 on {name}" for name, speed in attempt.speedups.items()]
    said = f"{attempt.move}: {', '.join(speeds)}, {attempt.fidelity:.1f} dB of signal to noise"
    said += f"; accuracy: {attempt.outcome}" if attempt.accuracy else ""
    return f"{said}.{failed}"


def _order(attempt: Attempt, runtime: str) -> tuple[int, float]:
    """Passing before undecided before failing, then the faster."""
    rank = {Verdict.PASS: 0, Verdict.UNDECIDED: 1, Verdict.FAIL: 2}
    return rank[attempt.accuracy[runtime].result], -attempt.speedups.get(runtime, 0.0)
