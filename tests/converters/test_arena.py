"""The arena: what it measures is measured once, and again as soon as anything differs."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from converters.arena import Arena
from converters.cache import Cache
from converters.executor import LocalExecutor
from converters.lanes import Lane, Race
from converters.loading import Loaded, load
from converters.progress import Silent
from converters.request import Request
from converters.workshop import Workshop
from edgeml.errors import ModelError
from hardware.capabilities import Cpu
from tests.needs import module

from .conftest import quarters, save_data, write_convnet, write_fragile

RUNTIME = "onnxruntime"


class Steps(Silent):
    """Remembers the steps that were taken."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def step(self, what: str, total: int = 0) -> None:
        self.taken.append(what)


class Bench:
    """Inputs in a folder, loaded anew for each question, and one cache for all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = write_convnet(folder / "net.onnx")
        self.calibration, self.evaluation = save_data(folder, quarters, evaluation=40)
        self.metric = "top1"
        self.runtimes: tuple[str, ...] = (RUNTIME,)
        self.host: Cpu | None = None
        self.name = "local"

    def loaded(self) -> Loaded:
        request = Request(
            model=self.model,
            calibration=str(self.calibration),
            evaluation=str(self.evaluation),
            metric=self.metric,
            name="toy",
            version="1",
            out=self.folder / "out",
            targets=("cpu",),
        )
        loaded = load(request, Silent())
        if self.host is not None:
            host = msgspec.structs.replace(loaded.host, cpu=self.host)
            loaded = msgspec.structs.replace(loaded, host=host)
        return loaded

    def is_measured_again(self, runtime: str = RUNTIME) -> bool:
        steps, cache, loaded = Steps(), Cache(self.folder / "cache"), self.loaded()
        workshop = Workshop(loaded, self.folder, cache, Silent())
        executor = LocalExecutor(name=self.name)
        with closing(Arena(executor, loaded, cache, steps)) as arena:
            arena.judge(Lane(workshop.float, runtime), workshop.float)
        return bool(steps.taken)


def _relabel(bench: Bench) -> None:
    with np.load(bench.evaluation) as arrays:
        x, y = arrays["x"], arrays["y"]
    y[3] = (y[3] + 1) % 4
    np.savez(bench.evaluation, x=x, y=y)


def _dim(bench: Bench) -> None:
    with np.load(bench.evaluation) as arrays:
        x, y = arrays["x"], arrays["y"]
    x[7] *= np.float32(0.99)
    np.savez(bench.evaluation, x=x, y=y)


def _retrain(bench: Bench) -> None:
    write_convnet(bench.model, channels=17)


def _move(bench: Bench) -> None:
    bench.host = Cpu(model="another", cores=1)


CHANGES: dict[str, Callable[[Bench], Any]] = {
    "one label": _relabel,
    "one sample": _dim,
    "the model": _retrain,
    "the metric": lambda bench: setattr(bench, "metric", "topk:2"),
    "the processor": _move,
    "the executor": lambda bench: setattr(bench, "name", "emulated Haswell"),
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    assert made.is_measured_again()
    assert not made.is_measured_again()
    return made


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_judged_is_judged_again_where_one_input_differs(bench: Bench, change: str) -> None:
    CHANGES[change](bench)
    assert bench.is_measured_again()
    assert not bench.is_measured_again()


def test_what_was_judged_is_judged_again_on_another_runtime(bench: Bench) -> None:
    module("openvino")
    assert bench.is_measured_again("openvino")
    assert not bench.is_measured_again("openvino")


def test_calibration_data_change_artifacts_and_no_judgement_of_the_float_model(
    bench: Bench,
) -> None:
    x, _ = quarters(32, 9)
    np.savez(bench.calibration, x=x)
    assert not bench.is_measured_again()


@pytest.fixture
def arena(bench: Bench) -> Iterator[Arena]:
    with closing(Arena(LocalExecutor(), bench.loaded(), Cache(None), Silent())) as opened:
        yield opened


@pytest.fixture
def lanes(bench: Bench) -> list[Lane]:
    """The float model twice, and a slower one."""
    workshop = Workshop(bench.loaded(), bench.folder, Cache(None), Silent())
    first = workshop.float
    path = write_convnet(bench.folder / "wide.onnx", channels=512)
    slow = msgspec.structs.replace(first, key="wide", path=path, digest="wide")
    again = msgspec.structs.replace(first, key="again")
    return [Lane(artifact, RUNTIME) for artifact in (first, again, slow)]


def test_a_race_of_what_is_clearly_apart_ends_early(arena: Arena, lanes: list[Lane]) -> None:
    first, _, slow = lanes
    times = arena.time(Race(lanes=[first, slow], seconds=60.0, bound=1.0))
    assert len(times[slow.key].milliseconds) in {20, 40, 80}
    assert times[slow.key].p50_ms > times[first.key].p50_ms


def test_lanes_race_in_processes_of_their_own_and_are_judged_in_one(
    arena: Arena, lanes: list[Lane]
) -> None:
    pids = set()
    for lane in lanes:
        with arena.opened(lane) as session:
            pids.add(_pid(session))
    assert len(pids) == 1
    arena.time(Race(lanes=lanes[:2], seconds=0.01))
    raced = set()
    for lane in lanes[:2]:
        with arena.opened(lane) as session:
            raced.add(_pid(session))
    assert len(raced) == 2
    assert not raced & pids


def test_a_file_that_does_not_load_leaves_the_others_running(
    arena: Arena, lanes: list[Lane]
) -> None:
    (lanes[1].artifact.path.parent / "broken.onnx").write_bytes(b"no model")
    broken = msgspec.structs.replace(
        lanes[0].artifact, key="broken", path=lanes[0].artifact.path.with_name("broken.onnx")
    )
    with pytest.raises(ModelError, match="cannot load"):
        arena.time(Race(lanes=[lanes[0], Lane(broken, RUNTIME)], seconds=0.1))
    with pytest.raises(ModelError, match="cannot load"), arena.opened(Lane(broken, RUNTIME)):
        pass
    assert arena.time(Race(lanes=[lanes[0]], seconds=0.01))


def test_a_model_that_kills_its_process_takes_no_other_with_it(
    arena: Arena, lanes: list[Lane], tmp_path: Path
) -> None:
    with arena.opened(lanes[0]) as session:
        session._channel._child.kill()  # type: ignore[attr-defined]
        session._channel._child.wait()  # type: ignore[attr-defined]
        with pytest.raises(ModelError, match="died in a process of its own"):
            session.run([np.zeros((1, 1, 12, 12), np.float32)])
    assert len(arena.judge(lanes[0], lanes[0].artifact).outcomes) == 40


def test_another_model_is_no_float_models_equal(arena: Arena, lanes: list[Lane]) -> None:
    first, again, slow = lanes
    feeds = [[np.ones((1, 1, 12, 12), np.float32)]]
    assert arena.fidelity(again, first.artifact, feeds) > 100
    assert arena.fidelity(slow, first.artifact, feeds) < 60
    fragile = write_fragile(first.artifact.path.parent / "fragile.onnx")
    other = msgspec.structs.replace(first.artifact, key="fragile", path=fragile)
    with pytest.raises(ModelError):
        arena.fidelity(Lane(other, RUNTIME), first.artifact, feeds)


def _pid(session: Any) -> int:
    return int(session._channel._child.pid)
