"""Execute all artifacts side by side: accuracy, speed, memory, and what they output."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict
from converters.candidates import Artifact
from converters.dataset import Dataset
from converters.evaluate import evaluate, take_turns
from converters.footprint import Footprint, measure_footprint
from converters.gates import accuracy_gate, speed_gate
from converters.plan import RUNTIME
from converters.progress import Progress
from converters.recipe import FLOAT
from converters.request import Request
from converters.task import Task
from hardware.runtimes import SessionOptions, open_session
from hardware.runtimes.interface import Session

_SECONDS = 1.0
_TRIES = 4  # races, while a speed gate is undecided
_FEEDS = 16


class Track(msgspec.Struct, frozen=True):
    """Where artifacts race: their sessions by key, the task, the data that judge."""

    sessions: Mapping[str, Session]
    task: Task
    evaluation: Dataset


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """What executing one artifact showed; `correct` is bool [samples], times in ms."""

    correct: np.ndarray
    milliseconds: np.ndarray
    footprint: Footprint
    placement: dict[str, int]


class Gates(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate beside the float model."""

    accuracy: GateResult
    speed: GateResult


class Race(msgspec.Struct, frozen=True, kw_only=True):
    """All measurements by artifact; `found` are the samples that reached the model."""

    measurements: dict[str, Measurement]
    gates: dict[str, Gates]
    found: np.ndarray


@contextmanager
def opened(artifacts: Sequence[Artifact]) -> Iterator[dict[str, Session]]:
    """One session an artifact, one thread each, closed at the end."""
    with ExitStack() as stack:
        sessions = {}
        for artifact in artifacts:
            session = open_session(RUNTIME, artifact.path, SessionOptions())
            stack.callback(session.close)
            sessions[artifact.key] = session
        yield sessions


def race(track: Track, artifacts: Sequence[Artifact], request: Request, progress: Progress) -> Race:
    """Measure all artifacts; the float model's key is `FLOAT` and it is always among them."""
    sessions, task, evaluation = track.sessions, track.task, track.evaluation
    progress.step(f"Evaluating {len(artifacts)} artifacts", len(evaluation))
    answers = evaluate(sessions, task, evaluation, baseline=FLOAT, on_sample=progress.advance)
    feeds = _feeds(task, evaluation)
    footprints = {}
    for artifact in artifacts:
        progress.step(f"Measuring the memory of {artifact.key}")
        footprints[artifact.key] = measure_footprint(RUNTIME, artifact.path, feeds[0])
    gates: dict[str, Gates] = {}
    times: dict[str, np.ndarray] = {}
    for _ in range(_TRIES):
        progress.step(f"Racing {len(artifacts)} artifacts")
        lap = take_turns(sessions, feeds, seconds=_SECONDS)
        times = {key: np.concatenate([times.get(key, lap[key][:0]), lap[key]]) for key in lap}
        gates = {
            artifact.key: Gates(
                accuracy=accuracy_gate(
                    answers.correct[FLOAT],
                    answers.correct[artifact.key],
                    metric=request.metric,
                    max_drop=request.max_drop,
                    confidence=request.confidence,
                ),
                speed=speed_gate(
                    times[FLOAT],
                    times[artifact.key],
                    min_speedup=request.min_speedup,
                    confidence=request.confidence,
                ),
            )
            for artifact in artifacts
            if artifact.key != FLOAT
        }
        if all(gate.speed.result is not Verdict.UNDECIDED for gate in gates.values()):
            break
    return Race(
        measurements={
            key: Measurement(
                correct=answers.correct[key],
                milliseconds=times[key],
                footprint=footprints[key],
                placement=session.placement(),
            )
            for key, session in sessions.items()
        },
        gates=gates,
        found=answers.found,
    )


def _feeds(task: Task, evaluation: Dataset) -> list[list[np.ndarray]]:
    feeds = []
    for sample in evaluation:
        tensors = task.prepare(sample)
        if tensors is not None:
            feeds.append([tensor.copy() for tensor in tensors])
        if len(feeds) == _FEEDS:
            break
    return feeds
