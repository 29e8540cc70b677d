"""Where candidates are judged: executed on the evaluation data, and timed side by side.

A `Lane` is an artifact on a runtime. Its accuracy is measured by executing it on every
evaluation sample; its speed in interleaved turns with others, each in a process of its own,
and the one that starts a round changes from round to round, so that whatever else the machine
does falls on all of them. What was measured is cached by everything that it depends on.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TypeVar

import msgspec
import numpy as np

from converters.cache import Cache
from converters.evaluation import Answers, Judged, Tensors, evaluate
from converters.executor import Channel, Executor, RemoteSession, load
from converters.lanes import Lane, Race, Timing
from converters.loading import Loaded
from converters.progress import Progress
from converters.turns import FIRST_LOOK, Times, on_one_side, take_turns
from converters.worker import Drop
from converters.workshop import Artifact
from edgeml.errors import EdgemlError
from hardware.probes import instruction_set

_T = TypeVar("_T")

EVALUATOR = 2  # raised when what is measured, or how, changes
THREADS = 1
_FEEDS = 16
_ROUNDS = 100  # of a race whose percentiles are evidence; slow models may take fewer
_QUICK_ROUNDS = 40
_PATIENCE = 2.0  # seconds that a slow model has for its rounds of evidence
_STARTS = 3  # that a limit on starting or on memory is judged by, by their median
_TINY = 1e-12
_MOST_OWN = 2  # sessions of a runtime that stay open: the float model's and the last one's
_LEAST_SHARE = 32  # samples that are worth a session more


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
        self._own: dict[str, RemoteSession] = {}
        self._warm: dict[tuple[str, int], list[Channel]] = {}
        self._spare: list[Channel] = []
        for remark in executor.remarks:
            progress.note(remark)

    def judge(self, lane: Lane, baseline: Artifact, *, beside: Lane | None = None) -> Judged:
        """Execute a lane on every evaluation sample.

        Args:
            lane: what to execute.
            baseline: the float model, whose outputs on the same runtime metrics without labels
                compare with.
            beside: the lane to take in its place.

        Raises:
            ModelError: the runtime cannot run it, or the data do not fit the metric.
        """
        metric = self._loaded.metric
        reference = beside or Lane(baseline, lane.runtime)
        key = f"{lane.key} {reference.key}" if metric.needs_reference else lane.key
        if key not in self._judged:
            parts = [EVALUATOR, *self.conditions(lane), metric.identity]
            parts += self.conditions(reference) if metric.needs_reference else [baseline.digest]
            known = self._cache.get("judged", parts)
            if known is not None:
                self._judged[key] = msgspec.msgpack.decode(known, type=Judged)
            else:
                self._progress.step(f"Evaluating {lane.key}", len(self._loaded.evaluation))
                self._judged[key] = judged = self._execute(lane, reference)
                with suppress(TypeError):  # a plug-in's outcomes may be what no message holds
                    self._cache.put("judged", parts, msgspec.msgpack.encode(judged))
        return self._judged[key]

    def time(self, race: Race) -> dict[str, Timing]:
        """Time lanes in turns, each in a process that has run nothing else; by lane key."""
        lanes, bound, is_quick = race.lanes, race.bound, race.is_quick
        parts = self._parts(race)
        known = self._cache.get("times", parts)
        if known is not None:
            return msgspec.msgpack.decode(known, type=dict[str, Timing])

        def settled(times: Times) -> bool:
            return bound is not None and all(
                on_one_side(np.divide(times[other.key], times[lane.key]).tolist(), bound)
                for lane, other in race.pairs.items()
            )

        if race.anew:
            self._end_own(lane.key for lane in race.lanes)
        with self._racing(lanes) as sessions:
            feeds = self._feeds()
            for session in sessions.values():
                session.keep(feeds)
            rounds = take_turns(
                sessions,
                len(feeds),
                seconds=race.seconds,
                settled=settled,
                least_rounds=_QUICK_ROUNDS if is_quick else _ROUNDS,
                most_seconds=None if is_quick else max(4 * race.seconds, _PATIENCE * len(lanes)),
                first_look=FIRST_LOOK if is_quick else _ROUNDS,
                on_round=self._progress.advance,
            )
            timings = {
                key: Timing(
                    milliseconds=tuple(rounds[key]),
                    loads_ms=(session.load_ms,),
                    peaks_bytes=(session.memory_bytes,),
                    placement=session.placement(),
                    info=session.info,
                )
                for key, session in sessions.items()
            }
        self._cache.put("times", parts, msgspec.msgpack.encode(timings))
        self.start_ahead()
        return timings

    def started_again(self, lane: Lane, timing: Timing) -> Timing:
        """A lane's timing with the starts of as many processes as a limit on them asks for.

        Args:
            lane: what is started.
            timing: of a race, whose processes count as well.
        """
        missing = _STARTS - len(timing.loads_ms)

        def start() -> list[tuple[float, int]]:
            taken = []
            for _ in range(missing):
                channel = self._started()
                channel.ask(Drop())  # it has started before it loads
                session = self._load(channel, lane)
                try:
                    session.keep(self._feeds()[:1])
                    session.time(0, 1)
                    taken.append((session.load_ms, session.memory_bytes))
                finally:
                    session.close()
            return taken

        if missing <= 0:
            return timing
        parts = [EVALUATOR, THREADS, missing, *self.conditions(lane)]
        more = self._cache.remember("starts", parts, list[tuple[float, int]], start)
        return msgspec.structs.replace(
            timing,
            loads_ms=(*timing.loads_ms, *(load_ms for load_ms, _ in more)),
            peaks_bytes=(*timing.peaks_bytes, *(peak for _, peak in more)),
        )

    def forget(self, race: Race) -> None:
        """Keep nothing of a race that decided nothing: the next conversion runs it again."""
        self._cache.drop("times", self._parts(race))

    def fidelity(
        self, lane: Lane, baseline: Artifact, feeds: Sequence[Sequence[np.ndarray]]
    ) -> float:
        """The ratio of signal to noise at the outputs, in dB; the worst of all outputs.

        Args:
            lane: what is compared.
            baseline: the float model, run on the same runtime.
            feeds: inputs, at least one.
        """
        told = hashlib.sha256()
        for feed in feeds:
            for tensor in feed:
                told.update(f"{tensor.dtype} {tensor.shape} ".encode() + tensor.tobytes())
        parts = [EVALUATOR, baseline.digest, *self.conditions(lane), told.hexdigest()]
        return self._cache.remember(
            "fidelity", parts, float, lambda: self._fidelity(lane, baseline, feeds)
        )

    def ask(
        self, kind: str, lane: Lane, shape: type[_T], question: Callable[[RemoteSession], _T]
    ) -> _T:
        """What comes of a question to a lane's session about the evaluation data; asked once.

        Args:
            kind: of question.
            lane: who answers.
            shape: the answer's type, as msgspec takes it.
            question: takes the session.
        """

        def answer() -> _T:
            with self.opened(lane) as session:
                return question(session)

        parts = [EVALUATOR, *self.conditions(lane), self._loaded.metric.identity]
        return self._cache.remember(kind, parts, shape, answer)

    @contextmanager
    def opened(self, lane: Lane, slot: int = 0) -> Iterator[RemoteSession]:
        """A lane's session, for other questions than its speed.

        A process that has raced the lane answers; else one that loads many, one by one.
        """
        own = self._own.pop(lane.key, None) if slot == 0 else None
        session = own or self._reloaded(lane, slot)
        try:
            yield session
        except BaseException:
            session.close()
            raise
        if own is not None:
            self._own[lane.key] = own
            return
        try:
            channel = session.release()
        except EdgemlError:  # a worker that died since is replaced where the next is needed
            session.close()
        else:
            self._warm.setdefault((lane.runtime, slot), []).append(channel)

    def start_ahead(self) -> None:
        """Start the workers that will be asked for next: they are ready by then."""
        while len(self._spare) < self._executor.ahead:
            self._spare.append(self._executor.start())

    def close(self) -> None:
        """End all workers."""
        self._end_own(self._own)
        while self._spare:
            self._spare.pop().close()
        while self._warm:
            for channel in self._warm.popitem()[1]:
                channel.close()

    def _parts(self, race: Race) -> list[object]:
        conditions = [self.conditions(lane) for lane in race.lanes]
        pairs = sorted((lane.key, other.key) for lane, other in race.pairs.items())
        how = [race.seconds, race.bound, race.is_quick, race.anew]
        return [EVALUATOR, THREADS, *how, pairs, conditions]

    def _end_own(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            if key in self._own:
                self._own.pop(key).close()

    def _reloaded(self, lane: Lane, slot: int) -> RemoteSession:
        """A lane loaded by a worker that may have run others before."""
        channels = self._warm.get((lane.runtime, slot))
        channel = channels.pop() if channels else self._started(slot)
        return self._load(channel, lane)

    def _started(self, slot: int = 0) -> Channel:
        """A worker that has run nothing."""
        return self._spare.pop() if self._spare and slot == 0 else self._executor.start(slot)

    def _load(self, channel: Channel, lane: Lane) -> RemoteSession:
        copies = self._executor.copies
        return load(channel, lane.runtime, lane.artifact.path, threads=THREADS, copies=copies)

    @contextmanager
    def _racing(self, lanes: Sequence[Lane]) -> Iterator[dict[str, RemoteSession]]:
        """Sessions by lane key, each in a process of its own, all on one machine.

        A few stay open for the next race: starting them is slow, the more so on an emulator.
        """
        sessions: dict[str, RemoteSession] = {}
        channels: list[Channel] = []
        try:
            new = [lane for lane in lanes if lane.key not in self._own]
            channels += [self._started() for _ in new]
            for channel in (*channels, *self._spare):
                channel.ask(Drop())  # all have started before one loads: loading is timed
            for lane in new:
                sessions[lane.key] = self._load(channels[0], lane)
                del channels[0]
            sessions |= {lane.key: self._own.pop(lane.key) for lane in lanes if lane not in new}
            yield {lane.key: sessions[lane.key] for lane in lanes}
        except BaseException:
            for session in sessions.values():
                session.close()
            for channel in channels:
                channel.close()
            raise
        for lane in lanes:
            self._own[lane.key] = sessions[lane.key]
            mine = [key for key in self._own if key.endswith(f"@{lane.runtime}")]
            for key in mine[:-_MOST_OWN]:
                self._own.pop(key).close()

    def _fidelity(
        self, lane: Lane, baseline: Artifact, feeds: Sequence[Sequence[np.ndarray]]
    ) -> float:
        signal: np.ndarray | None = None
        beside = Lane(baseline, lane.runtime)
        with self.opened(lane) as session, self.opened(beside) as reference:
            for feed in feeds:
                wanted, given = reference.run(feed), session.run(feed)
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

    def _execute(self, lane: Lane, reference: Lane) -> Judged:
        is_baseline = lane.key == reference.key
        samples = len(self._loaded.evaluation)
        count = max(1, min(self._executor.slots, samples // _LEAST_SHARE))
        with ExitStack() as stack:
            answers = [
                self._answers(stack, lane, None if is_baseline else reference, slot)
                for slot in range(count)
            ]
            self.start_ahead()
            return evaluate(
                answers, self._loaded, is_baseline=is_baseline, on_sample=self._progress.advance
            )

    def _answers(self, stack: ExitStack, lane: Lane, beside: Lane | None, slot: int) -> Answers:
        """How a slot answers: the outputs, and what the metric compares them with."""
        metric = self._loaded.metric
        session = stack.enter_context(self.opened(lane, slot))
        reference: RemoteSession | None = None
        if beside is not None and metric.needs_reference:
            reference = stack.enter_context(self.opened(beside, slot))

        def answer(feeds: Sequence[Tensors]) -> list[tuple[Tensors, Tensors]]:
            outputs = session.run_each(feeds)
            beside: Sequence[Tensors] = feeds if metric.needs_inputs else outputs
            if reference is not None:
                beside = reference.run_each(feeds)
            return list(zip(outputs, beside, strict=True))

        return answer

    def _feeds(self) -> list[list[np.ndarray]]:
        feeds = []
        for sample in self._loaded.evaluation:
            tensors = self._loaded.task.prepare(sample)
            if tensors is not None:
                feeds.append([tensor.copy() for tensor in tensors])
            if len(feeds) == _FEEDS:
                break
        return feeds

    def conditions(self, lane: Lane) -> list[str]:
        """All that a lane's answers and times follow from, but for who asks."""
        host, inputs = self._loaded.host, self._loaded.inputs
        version = next((r.version for r in host.runtimes if r.name == lane.runtime), "")
        return [
            *(lane.artifact.digest, lane.runtime, version),
            *(self._executor.name, host.hardware_class, host.cpu.model, instruction_set(host)),
            *(inputs.evaluation, inputs.pipeline),
        ]


def _power_of_difference(wanted: np.ndarray, given: np.ndarray) -> float:
    if wanted.shape != given.shape:
        return float("inf")
    difference = wanted.astype(np.float64) - given.astype(np.float64)
    return float(np.sum(np.square(difference)))
