"""What is told of an attempt: each runtime's own reason, where one cannot run what another can."""

from contextlib import closing
from pathlib import Path

from converters.arena import Arena
from converters.cache import Cache
from converters.contest import Contestants
from converters.executor import Channel, LocalExecutor
from converters.loading import load
from converters.progress import Silent
from converters.request import Request
from converters.worker import Load, Refused, Reply
from converters.worker import Request as Message
from converters.workshop import Workshop


class Notes(Silent):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, what: str) -> None:
        self.told.append(what)


class WithoutInt8(LocalExecutor):
    """Processes in which one runtime refuses what is not float."""

    def __init__(self, runtime: str) -> None:
        super().__init__()
        self._runtime = runtime

    def start(self, slot: int = 0) -> Channel:
        return _Refusing(super().start(slot), self._runtime)


class _Refusing:
    def __init__(self, channel: Channel, runtime: str) -> None:
        self._channel = channel
        self._runtime = runtime

    def ask(self, request: Message) -> Reply:
        is_mine = isinstance(request, Load) and request.runtime == self._runtime
        if is_mine and Path(request.path).stem != "float32":
            return Refused("It has no operator for this.", "It is too old.")
        return self._channel.ask(request)

    def close(self) -> None:
        self._channel.close()


def test_a_runtime_that_cannot_run_a_file_is_named_with_its_reason_while_another_runs_it(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    calibration, evaluation = map(str, quarters_data)
    request = Request(
        model=convnet,
        calibration=calibration,
        evaluation=evaluation,
        name="quarters",
        version="1",
        out=tmp_path / "out",
        targets=("cpu",),
        max_drop=0.05,
        min_speedup=0.0,
    )
    notes, cache = Notes(), Cache(None)
    loaded = load(request, notes)
    workshop = Workshop(loaded, tmp_path, cache, notes)
    with closing(Arena(WithoutInt8("openvino"), loaded, cache, notes)) as arena:
        contestants = Contestants(workshop, arena, loaded, request, notes)
        contest = contestants.search(("u8s8",), ["onnxruntime", "openvino"])
    reason = "It has no operator for this. It is too old."
    first = contest.attempts[0]
    assert set(first.speedups) == {"onnxruntime"}
    assert first.failed == {"openvino": reason}
    assert not first.refused
    assert all(attempt.failed == first.failed for attempt in contest.attempts)
    assert any(f"Not on openvino: {reason}" in note for note in notes.told)
    assert {c.lane.runtime for c in contest.contenders} == {"onnxruntime"}


def test_a_file_that_no_runtime_runs_is_refused_with_every_reason(
    convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path
) -> None:
    calibration, evaluation = map(str, quarters_data)
    request = Request(
        model=convnet,
        calibration=calibration,
        evaluation=evaluation,
        name="quarters",
        version="1",
        out=tmp_path / "out",
        targets=("cpu",),
    )
    notes, cache = Notes(), Cache(None)
    loaded = load(request, notes)
    workshop = Workshop(loaded, tmp_path, cache, notes)
    with closing(Arena(WithoutInt8("onnxruntime"), loaded, cache, notes)) as arena:
        contestants = Contestants(workshop, arena, loaded, request, notes)
        contest = contestants.search(("u8s8",), ["onnxruntime"])
    assert not contest.contenders
    assert "onnxruntime: It has no operator" in contest.attempts[0].refused
    assert all(attempt.refused for attempt in contest.attempts)
