"""Which races are run again, and in new processes: real ones, whose times a test decides on."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from cloud_sync.evidence import Verdict
from converters.arena import Arena
from converters.cache import Cache
from converters.executor import Channel, LocalExecutor
from converters.lanes import Lane
from converters.last_race import Entry, last_race
from converters.loading import Loaded, load
from converters.progress import Silent
from converters.quick_race import quick_race
from converters.request import Request
from converters.worker import Done, Load, Reply, Time
from converters.worker import Request as Message
from converters.workshop import Workshop

from .conftest import write_convnet

RUNTIME = "onnxruntime"
Speeds = Callable[[str, int], float]


class Timed(LocalExecutor):
    """Processes whose times are said by model and by how many processes loaded it before."""

    def __init__(self) -> None:
        super().__init__()
        self.milliseconds: Speeds = lambda _model, _process: 1.0
        self.loads: dict[str, int] = {}

    def start(self, slot: int = 0) -> Channel:
        return _Timed(super().start(slot), self)


class _Timed:
    def __init__(self, channel: Channel, executor: Timed) -> None:
        self._channel = channel
        self._executor = executor
        self._model, self._process = "", 0

    def ask(self, request: Message) -> Reply:
        reply = self._channel.ask(request)
        if isinstance(request, Load):
            self._model = Path(request.path).stem
            self._process = self._executor.loads.get(self._model, 0)
            self._executor.loads[self._model] = self._process + 1
        if isinstance(request, Time):
            assert isinstance(reply, Done)
            took = self._executor.milliseconds(self._model, self._process)
            return msgspec.structs.replace(reply, milliseconds=(took,) * request.runs)
        return reply

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def executor() -> Timed:
    return Timed()


@pytest.fixture
def loaded(convnet: Path, quarters_data: tuple[Path, Path], tmp_path: Path) -> Loaded:
    request = Request(
        model=convnet,
        calibration=str(quarters_data[0]),
        evaluation=str(quarters_data[1]),
        name="toy",
        version="1",
        out=tmp_path / "out",
        targets=("cpu",),
    )
    return load(request, Silent())


@pytest.fixture
def arena(executor: Timed, loaded: Loaded) -> Iterator[Arena]:
    with closing(Arena(executor, loaded, Cache(None), Silent())) as opened:
        yield opened


@pytest.fixture
def lanes(loaded: Loaded, tmp_path: Path) -> list[Lane]:
    """float32, `clear` and `close`."""
    first = Workshop(loaded, tmp_path, Cache(None), Silent()).float
    made = [first]
    for name in ("clear", "close"):
        path = write_convnet(tmp_path / f"{name}.onnx")
        made.append(msgspec.structs.replace(first, key=name, path=path, digest=name))
    return [Lane(artifact, RUNTIME) for artifact in made]


def by(**speedups: tuple[float, ...]) -> Speeds:
    """Times by what models' processes are to show: the last speed-up is of all further ones."""

    def milliseconds(model: str, process: int) -> float:
        shown = speedups.get(model, (1.0,))
        return 1 / shown[min(process, len(shown) - 1)]

    return milliseconds


def test_what_one_process_shows_too_slow_is_raced_in_others_and_the_better_counts(
    executor: Timed, arena: Arena, lanes: list[Lane]
) -> None:
    executor.milliseconds = by(close=(0.7, 1.3))
    quick = quick_race(arena, lanes[0], lanes[2], min_speedup=1.1)
    assert quick.speedup == pytest.approx(1.3)
    assert quick.milliseconds == pytest.approx(1 / 1.3)
    assert executor.loads["close"] == 2


@pytest.mark.parametrize("speedup", [0.3, 1.06, 1.5])
def test_what_is_hopeless_or_may_be_fast_enough_is_raced_once(
    executor: Timed, arena: Arena, lanes: list[Lane], speedup: float
) -> None:
    executor.milliseconds = by(close=(speedup,))
    quick = quick_race(arena, lanes[0], lanes[2], min_speedup=1.1)
    assert quick.speedup == pytest.approx(speedup)
    assert executor.loads["close"] == 1


def test_only_what_is_in_doubt_races_again_in_new_processes_beside_its_float32(
    executor: Timed, arena: Arena, lanes: list[Lane]
) -> None:
    baseline, clear, close = lanes
    executor.milliseconds = by(clear=(2.0,), close=(1.15,))
    contenders = {clear: Entry(baseline, 2.0), close: Entry(baseline, 1.2)}
    timings, gates = last_race(arena, contenders, lanes, min_speedup=1.1, confidence=0.95)
    assert {gate.result for gate in gates.values()} == {Verdict.PASS}
    assert executor.loads == {"float32": 2, "clear": 1, "close": 2}
    rounds = {key: len(timing.milliseconds) for key, timing in timings.items()}
    assert rounds[close.key] == rounds[baseline.key] > rounds[clear.key] >= 100
    assert len(timings[close.key].loads_ms) == len(timings[close.key].peaks_bytes) == 2


@pytest.mark.parametrize("lucky", [{"close": (1.5, 0.9)}, {"float32": (0.7, 1.0), "close": (0.9,)}])
def test_what_one_process_alone_has_shown_counts_once_however_often_it_raced(
    executor: Timed, arena: Arena, lanes: list[Lane], lucky: dict[str, tuple[float, ...]]
) -> None:
    baseline, _, close = lanes
    executor.milliseconds = by(**lucky)
    quick = quick_race(arena, baseline, close, min_speedup=1.1)
    assert quick.speedup > 1.25
    contenders = {close: Entry(baseline, quick.speedup)}
    _, gates = last_race(arena, contenders, [baseline, close], min_speedup=1.1, confidence=0.95)
    assert gates[close.key].result is Verdict.FAIL


def test_processes_that_disagree_leave_a_contender_undecided_after_three_races(
    executor: Timed, arena: Arena, lanes: list[Lane]
) -> None:
    baseline, _, close = lanes
    executor.milliseconds = by(close=(1.15, 0.9, 1.15))
    contenders = {close: Entry(baseline, 1.2)}
    _, gates = last_race(arena, contenders, [baseline, close], min_speedup=1.1, confidence=0.95)
    assert gates[close.key].result is Verdict.UNDECIDED
    assert executor.loads["close"] == 3


def test_a_limit_on_the_start_is_judged_by_three_processes(
    executor: Timed, arena: Arena, lanes: list[Lane]
) -> None:
    baseline = lanes[0]
    timings, _ = last_race(arena, {}, [baseline], min_speedup=1.1, confidence=0.95)
    again = arena.started_again(baseline, timings[baseline.key])
    assert executor.loads["float32"] == len(again.loads_ms) == len(again.peaks_bytes) == 3
    assert again.milliseconds == timings[baseline.key].milliseconds
    assert again.load_ms == sorted(again.loads_ms)[1]
    assert arena.started_again(baseline, again) == again
