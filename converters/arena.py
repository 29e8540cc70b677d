"""Where candidates are judged: executed on the evaluation data, and timed side by side.

A `Lane` is an artifact on a runtime. Its accuracy is measured by executing it on every
evaluation sample; its speed in interleaved turns with others, each in a process of its own,
and the one that starts a round changes from round to round, so that whatever else the machine
does falls on all of them. What was measured is cached by everything that it depends on.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import msgspec
import numpy as np

from cloud_sync.evidence import Latency
from converters.cache import Cache
from converters.executor import Executor, RemoteSession, open_remote
from converters.loading import Loaded
from converters.progress import Progress
from converters.workshop import Artifact
from edgeml.errors import ModelError
from hardware.capabilities import RuntimeInfo
from hardware.probes import instruction_set
from hardware.runtimes.interface import Session

EVALUATOR = 1  # raised when what is measured, or how, changes
THREADS = 1
_FEEDS = 16
_TURN_MS = 2.0  # a lane's turn lasts about this long, so that short inferences warm up
_MOST_IN_TURN = 32
_TINY = 1e-12
_MOST_IDLE = 4


class Lane(msgspec.Struct, frozen=True):
    """An artifact on a runtime."""

    artifact: Artifact
    runtime: str

    @property
    def key(self) -> str:
        """Its name among others."""
        return f"{self.artifact.key}@{self.runtime}"


class Judged(msgspec.Struct, frozen=True):
    """Of each evaluation sample, what the metric made of it, and whether it was inferred.

    A sample in which the pipeline finds nothing has the outcome of a wrong answer.
    """

    outcomes: tuple[Any, ...]
    found: tuple[bool, ...]


class Timing(msgspec.Struct, frozen=True):
    """Milliseconds a round, of loading, peak memory in bytes, and where nodes were placed."""

    milliseconds: tuple[float, ...]
    load_ms: float
    memory_bytes: int
    placement: dict[str, int]
    info: RuntimeInfo

    @property
    def p50_ms(self) -> float:
        """The median; NaN where nothing was timed."""
        return self.latency.p50_ms if self.latency else float("nan")

    @property
    def latency(self) -> Latency | None:
        """Its percentiles; None where nothing was timed."""
        if not self.milliseconds:
            return None
        p50, p95, p99 = np.percentile(self.milliseconds, [50, 95, 99])
        return Latency(
            p50_ms=float(p50), p95_ms=float(p95), p99_ms=float(p99), n=len(self.milliseconds)
        )


class Arena:
    """Judges lanes by the evaluation data of one conversion."""

    def __init__(
        self, executor: Executor, loaded: Loaded, cache: Cache, progress: Progress
    ) -> None:
        self._executor = executor
        self._loaded = loaded
        self._cache = cache
        self._progress = progress
        self._judged: dict[str, Judged] = {}
        self._idle: dict[str, RemoteSession] = {}

    def judge(self, lane: Lane, baseline: Artifact) -> Judged:
        """Execute a lane on every evaluation sample.

        Args:
            lane: what to execute.
            baseline: the float model, whose outputs metrics without labels compare with.

        Raises:
            ModelError: the runtime cannot run it, or the data do not fit the metric.
        """
        if lane.key not in self._judged:
            parts = [
                EVALUATOR,
                baseline.digest,
                *self._conditions(lane),
                self._loaded.metric.identity,
            ]
            known = self._cache.get("judged", parts)
            if known is not None:
                self._judged[lane.key] = msgspec.msgpack.decode(known, type=Judged)
            else:
                self._progress.step(f"Evaluating {lane.key}", len(self._loaded.evaluation))
                self._judged[lane.key] = judged = self._execute(lane, baseline)
                with suppress(TypeError):  # a plug-in's outcomes may be what no message holds
                    self._cache.put("judged", parts, msgspec.msgpack.encode(judged))
        return self._judged[lane.key]

    def time(self, lanes: Sequence[Lane], *, seconds: float) -> dict[str, Timing]:
        """Time lanes in turns; by lane key.

        Args:
            lanes: what runs.
            seconds: how long about, for all of them together.
        """
        parts = [EVALUATOR, THREADS, seconds, [self._conditions(lane) for lane in lanes]]
        known = self._cache.get("times", parts)
        if known is not None:
            return msgspec.msgpack.decode(known, type=dict[str, Timing])
        with self._opened(lanes) as sessions:
            feeds = self._feeds()
            for session in sessions.values():
                session.keep(feeds)
            rounds = take_turns(
                sessions, len(feeds), seconds=seconds, on_round=self._progress.advance
            )
            timings = {
                key: Timing(
                    milliseconds=tuple(rounds[key]),
                    load_ms=session.load_ms,
                    memory_bytes=session.memory_bytes,
                    placement=session.placement(),
                    info=session.info,
                )
                for key, session in sessions.items()
            }
        self._cache.put("times", parts, msgspec.msgpack.encode(timings))
        return timings

    def fidelity(
        self, lane: Lane, baseline: Artifact, feeds: Sequence[Sequence[np.ndarray]]
    ) -> float:
        """The ratio of signal to noise at the outputs, in dB; the worst of all outputs.

        Args:
            lane: what is compared.
            baseline: the float model, run on the same runtime.
            feeds: inputs, at least one.
        """
        reference = Lane(baseline, lane.runtime)
        signal: np.ndarray | None = None
        with self._opened([lane, reference]) as sessions:
            for feed in feeds:
                wanted = sessions[reference.key].run(feed)
                given = sessions[lane.key].run(feed)
                powers = np.array(
                    [
                        [np.sum(np.square(w, dtype=np.float64)), _power_of_difference(w, g)]
                        for w, g in zip(wanted, given, strict=True)
                    ]
                )
                signal = powers if signal is None else signal + powers
        if signal is None or not np.isfinite(signal).all():
            return float("-inf")
        ratios = (signal[:, 0] + _TINY) / (signal[:, 1] + _TINY)
        return float(10 * np.log10(ratios.min()))

    @contextmanager
    def opened(self, lane: Lane) -> Iterator[RemoteSession]:
        """A lane's session, for other questions."""
        with self._opened([lane]) as sessions:
            yield sessions[lane.key]

    def close(self) -> None:
        """End all workers."""
        while self._idle:
            self._idle.popitem()[1].close()

    @contextmanager
    def _opened(self, lanes: Sequence[Lane]) -> Iterator[dict[str, RemoteSession]]:
        """Sessions by lane key; a few stay open for the next question, as starting one is slow."""
        sessions: dict[str, RemoteSession] = {}
        try:
            for lane in lanes:
                sessions[lane.key] = (
                    self._idle.pop(lane.key)
                    if lane.key in self._idle
                    else open_remote(
                        self._executor, lane.runtime, lane.artifact.path, threads=THREADS
                    )
                )
            yield sessions
        except BaseException:
            for session in sessions.values():
                session.close()
            raise
        self._idle |= sessions
        while len(self._idle) > _MOST_IDLE:
            self._idle.pop(next(iter(self._idle))).close()

    def _execute(self, lane: Lane, baseline: Artifact) -> Judged:
        with ExitStack() as stack:
            session = stack.enter_context(self.opened(lane))
            reference: RemoteSession | None = None

            def float_outputs(tensors: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
                nonlocal reference
                if reference is None:
                    reference = stack.enter_context(self.opened(Lane(baseline, lane.runtime)))
                return reference.run(tensors)

            is_baseline = lane.artifact.key == baseline.key
            return evaluate(
                session,
                self._loaded,
                reference=None if is_baseline else float_outputs,
                on_sample=self._progress.advance,
            )

    def _feeds(self) -> list[list[np.ndarray]]:
        feeds = []
        for sample in self._loaded.evaluation:
            tensors = self._loaded.task.prepare(sample)
            if tensors is not None:
                feeds.append([tensor.copy() for tensor in tensors])
            if len(feeds) == _FEEDS:
                break
        return feeds

    def _conditions(self, lane: Lane) -> list[str]:
        host, inputs = self._loaded.host, self._loaded.inputs
        version = next((r.version for r in host.runtimes if r.name == lane.runtime), "")
        return [
            *(lane.artifact.digest, lane.runtime, version),
            *(self._executor.name, host.hardware_class, host.cpu.model, instruction_set(host)),
            *(inputs.evaluation, inputs.pipeline),
        ]


def evaluate(
    session: Session,
    loaded: Loaded,
    *,
    reference: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]] | None,
    on_sample: Callable[[int], None] = lambda _: None,
) -> Judged:
    """Run a session on every evaluation sample.

    Args:
        session: what is judged.
        loaded: task, metric and evaluation data.
        reference: runs the float model on tensors, called only by metrics that look at its
            outputs; None where `session` is the float model itself.
        on_sample: called with the number of samples done.

    Raises:
        ModelError: the float model's outputs are not finite, the labels do not fit, or the
            pipeline found nothing in any sample.
    """
    metric, dataset = loaded.metric, loaded.evaluation
    outcomes: list[Any] = []
    found: list[bool] = []
    for index, sample in enumerate(dataset):
        tensors = loaded.task.prepare(sample)
        on_sample(index + 1)
        found.append(tensors is not None)
        if tensors is None:
            outcomes.append(metric.missed(dataset.label(index)))
            continue
        outputs = session.run(tensors)
        if reference is None:
            _check_finite(outputs, index, dataset.path)
        if sum(found) == 1:
            loaded.task.check_outputs(outputs)
            metric.check(dataset, outputs)
        beside = tensors if metric.needs_inputs else outputs
        if reference is not None and metric.needs_reference:
            beside = reference(tensors)
        outcomes.append(metric.outcome(outputs, dataset.label(index), beside))
    if not any(found):
        raise ModelError(
            f"The pipeline found nothing to infer in any of the {len(dataset)} samples in "
            f"{dataset.path}.",
            fix="Look at its locate step, and whether the samples are region images.",
        )
    return Judged(tuple(outcomes), tuple(found))


def _power_of_difference(wanted: np.ndarray, given: np.ndarray) -> float:
    if wanted.shape != given.shape:
        return float("inf")
    difference = wanted.astype(np.float64) - given.astype(np.float64)
    return float(np.sum(np.square(difference)))


def _check_finite(outputs: Sequence[np.ndarray], index: int, path: Any) -> None:
    if not all(np.isfinite(o).all() for o in outputs if o.dtype.kind == "f"):
        raise ModelError(
            f"The float model's output is NaN or infinite for evaluation sample {index} in {path}.",
            why="Such a model cannot be compared with.",
        )


def take_turns(
    sessions: Mapping[str, RemoteSession],
    feeds: int,
    *,
    seconds: float,
    least_rounds: int = 40,
    most_rounds: int = 2000,
    on_round: Callable[[int], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time sessions in turns; returns milliseconds by name, one a round.

    A turn runs the same input until about two milliseconds are over and counts its median.
    Ends after `seconds`, though not before `least_rounds` (which slow models may cut short at
    four times `seconds`, never below 12) nor after `most_rounds`.
    """
    names = list(sessions)
    runs = {}
    for name, session in sessions.items():
        warm = session.time(0, 3)
        runs[name] = max(1, min(_MOST_IN_TURN, round(_TURN_MS / max(min(warm), 1e-3))))
    times: dict[str, list[float]] = {name: [] for name in names}
    begun = clock()
    for rounds in range(most_rounds):
        spent = clock() - begun
        enough = spent >= seconds and rounds >= least_rounds
        too_slow = spent >= 4 * seconds and rounds >= 12  # noqa: PLR2004
        if enough or too_slow:
            break
        on_round(rounds)
        turn = rounds % len(names)
        for name in names[turn:] + names[:turn]:
            taken = sessions[name].time(rounds % feeds, runs[name])
            times[name].append(float(np.median(taken)))
    return times
