"""A model's worker: every frame answered once, its release swapped between two frames."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_sync.messages import DesiredModel, Measure, Window
from edge_agent.execution import Execution
from edge_agent.loaded import LoadedRelease, load
from edge_agent.mailbox import Frame
from edge_agent.store import ReleaseStore
from edge_agent.worker import Worker, allowed_s
from edgeml.errors import ModelError, ReleaseError, UserError
from tests.cloud_sync.releases import make_release
from tests.edge_agent.processes import eventually

SWAPS = 100
IMAGES = np.random.default_rng(2).integers(0, 256, (7, 24, 24), np.uint8)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Bench:
    """Releases on disk, a worker, and everything that came out of it."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        self.windows: list[Window] = []
        self._stored = [self._store(folder / str(seed), seed) for seed in range(2)]
        self.worker = Worker("toy", self.load(0), self.lines.append)
        self._numbers = itertools.count()

    @staticmethod
    def _store(folder: Path, seed: int) -> tuple[ReleaseStore, DesiredModel]:
        layout, release = make_release(folder, f"1.{seed}.0", seed=seed)
        desired = DesiredModel(
            release=release.digest,
            variant=release.variants[0].digest,
            release_version=release.version,
        )
        return ReleaseStore(layout.folder), desired

    def load(self, which: int) -> LoadedRelease:
        return load(*self._stored[which], {}, Execution(runtime="onnxruntime"))

    def store(self, which: int) -> tuple[ReleaseStore, DesiredModel]:
        return self._stored[which]

    def put(self, image: Any = None, source: str = "belt") -> None:
        number = next(self._numbers)
        chosen = IMAGES[number % len(IMAGES)] if image is None else image
        self.worker.mailbox.put(Frame(source=source, index=number, captured=0.0, image=chosen))

    def swap(self, which: int) -> None:
        before, windows = self.worker.swap(self.load(which))
        self.windows += windows
        before.close()

    def finish(self) -> None:
        eventually(
            lambda: not any(self.worker.mailbox.waiting(s) for s in self.worker.mailbox.sources())
        )
        self.worker.stop()
        assert self.worker.join()
        self.windows += self.worker.windows()

    def total(self, name: str) -> int:
        return sum(getattr(window, name) for window in self.windows)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.worker.start()
    yield made
    made.worker.stop()
    assert made.worker.join()


def test_a_hundred_swaps_under_load_lose_no_frame(bench: Bench) -> None:
    stop = threading.Event()

    def feed() -> None:
        while not stop.wait(0.0005):
            bench.put()

    feeder = threading.Thread(target=feed)
    feeder.start()
    threads, handles = threading.active_count(), open_files()
    for number in range(SWAPS):
        answered = len(bench.lines)
        bench.swap((number + 1) % 2)
        eventually(lambda n=answered: len(bench.lines) > n, 5, "a frame", every_s=0.001)
    assert threading.active_count() == threads
    assert open_files() == handles
    stop.set()
    feeder.join()
    bench.finish()
    accepted, replaced = bench.worker.mailbox.counts("belt")
    assert bench.total("accepted") == accepted
    assert bench.total("replaced") == replaced
    assert bench.total("errors") == 0
    assert accepted == bench.total("inferred") + bench.total("empty") + replaced
    frames = [line["frame"] for line in bench.lines]
    assert len(frames) == accepted - replaced
    assert frames == sorted(set(frames))


def test_each_frame_is_answered_by_the_release_that_its_window_names(bench: Bench) -> None:
    for which in (1, 0, 1):
        for _ in range(5):
            answered = len(bench.lines)
            bench.put()
            eventually(lambda n=answered: len(bench.lines) > n)
        bench.swap(which)
    bench.finish()
    by_window = Counter[str]()
    for window in bench.windows:
        by_window[window.release_version] += window.inferred
    assert by_window == Counter(line["release_version"] for line in bench.lines)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.float64), np.zeros((0, 0), np.uint8), "no"])
def test_a_frame_that_fails_is_an_error_and_the_next_is_answered(bench: Bench, wrong: Any) -> None:
    bench.put(wrong)
    eventually(lambda: len(bench.lines) == 1)
    bench.put()
    eventually(lambda: len(bench.lines) == 2)
    bench.finish()
    assert "error" in bench.lines[0]
    assert "label" in bench.lines[1]
    assert (bench.total("accepted"), bench.total("errors"), bench.total("inferred")) == (2, 1, 1)


def test_a_busy_worker_lets_a_swap_through_at_once(bench: Bench) -> None:
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            bench.put()

    feeder = threading.Thread(target=flood)
    feeder.start()
    try:
        for which in (1, 0, 1):
            answered = len(bench.lines)
            bench.swap(which)
            # A handful of frames may have been done while it waited, not hundreds.
            assert len(bench.lines) - answered < 100
    finally:
        stop.set()
        feeder.join()


def test_a_window_says_for_how_much_of_its_time_the_model_may_infer(bench: Bench) -> None:
    bench.worker.duty = 0.5
    bench.put()
    bench.finish()
    assert [window.duty for window in bench.windows] == [0.5]


def test_what_a_site_sets_holds_from_the_next_frame_on(bench: Bench) -> None:
    bench.worker.set_site({"threshold": 1.0})
    bench.put()
    eventually(lambda: len(bench.lines) == 1)
    assert bench.lines[0]["confident"] is False
    with pytest.raises(ModelError, match="may not set gain"):
        bench.worker.set_site({"gain": 2})
    bench.worker.set_site({"threshold": 0.0})
    bench.put()
    eventually(lambda: len(bench.lines) == 2)
    assert bench.lines[1]["confident"] is True


def test_weights_with_one_flipped_bit_are_not_loaded(bench: Bench) -> None:
    store, desired = bench.store(0)
    variant = store.variant(desired.release, desired.variant)
    path = store.path(variant, "model")
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(ReleaseError, match="damaged"):
        load(store, desired, {}, Execution(runtime="onnxruntime"))


@pytest.mark.parametrize(
    ("times", "allowed"),
    [
        ([], 60.0),  # a runtime may prepare much at its first frame
        ([0.002] * 49, 10.0),
        ([0.9] * 49, 18.0),
        ([0.002] * 50, 1.0),
        ([0.1] * 50, 2.0),
        ([0.002] * 97 + [0.5] * 3, 10.0),  # the 99th percentile, not the usual time
        ([0.002] * 1000 + [5.0], 1.0),  # nor the longest
    ],
)
def test_how_long_a_frame_may_take_follows_from_what_was_measured(
    times: list[float], allowed: float
) -> None:
    assert allowed_s(times) == pytest.approx(allowed)


class Driver:
    """Holds up the next inference until it is let go, as a broken driver does."""

    def __init__(self, bench: Bench) -> None:
        self.hangs = threading.Event()
        self.let_go = threading.Event()
        session = bench.worker.loaded.session
        run = session.run

        def held(tensors: Any) -> Any:
            if self.hangs.is_set():
                self.let_go.wait(30)
            return run(tensors)

        session.run = held  # type: ignore[method-assign]


def test_a_frame_that_hangs_is_found_soon_once_the_releases_speed_is_known(bench: Bench) -> None:
    driver = Driver(bench)
    for number in range(60):
        bench.put()
        eventually(lambda n=number: len(bench.lines) > n, every_s=0.001)
    driver.hangs.set()
    bench.put()
    eventually(lambda: bench.worker.stuck_s() > 1.0, 10, "found", every_s=0.01)
    driver.let_go.set()
    eventually(lambda: len(bench.lines) == 61)
    assert bench.worker.stuck_s() == 0.0
    bench.finish()


def test_a_request_of_others_has_the_time_that_it_was_given(bench: Bench) -> None:
    driver = Driver(bench)
    tensors = [spec.tensor(np.zeros((1, 1, 4, 4))) for spec in bench.worker.loaded.session.inputs]
    for number in range(60):
        bench.put()
        eventually(lambda n=number: len(bench.lines) > n, every_s=0.001)
    driver.hangs.set()
    asking = threading.Thread(target=lambda: bench.worker.infer(tensors, 2.5), daemon=True)
    begun = time.monotonic()
    asking.start()
    eventually(lambda: bench.worker.stuck_s(), 20, "found", every_s=0.01)
    assert time.monotonic() - begun > 2.5
    driver.let_go.set()
    asking.join(20)
    assert bench.worker.stuck_s() == 0.0


def test_the_energy_of_a_window_is_shared_out_over_its_sources(tmp_path: Path) -> None:
    used = itertools.count(100, 12)
    bench = Bench(tmp_path)
    bench.worker.stop()
    bench.worker = Worker("toy", bench.load(0), bench.lines.append, energy=lambda: next(used))
    bench.worker.start()
    mailbox = bench.worker.mailbox
    for source in ("belt", "belt", "door"):
        bench.put(source=source)
        eventually(lambda: not any(mailbox.waiting(name) for name in mailbox.sources()))
    bench.finish()
    assert {w.source: w.energy_j for w in bench.windows} == {"belt": 8.0, "door": 4.0}


def test_where_nothing_measures_energy_a_window_says_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.worker.start()
    bench.put()
    bench.finish()
    assert [w.energy_j for w in bench.windows] == [None]


def test_what_was_measured_goes_up_with_the_next_window_of_the_release_that_ran(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    bench.worker.measure({"glare": [0.2, 0.6], "rejects": [3.0]})
    [window] = bench.worker.windows()  # also where no frame comes
    assert (window.source, window.accepted) == ("", 0)
    assert window.metrics["glare"] == Measure(n=2, sum=0.8, min=0.2, max=0.6)
    assert window.metrics["rejects"] == Measure(n=1, sum=3.0, min=3.0, max=3.0)
    assert bench.worker.windows() == []
    bench.worker.measure({"glare": [0.9]})
    bench.worker.start()
    bench.swap(1)
    bench.worker.measure({"glare": [0.1]})
    bench.finish()
    told = [(w.release_version, w.metrics["glare"].max) for w in bench.windows if w.metrics]
    assert told == [("1.0.0", 0.9), ("1.1.0", 0.1)]
    with pytest.raises(UserError, match="no more than 63 metrics"):
        bench.worker.measure({f"name{n}": [1.0] for n in range(64)})


def test_a_window_says_how_warm_the_device_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.worker.stop()
    bench.worker = Worker("toy", bench.load(0), bench.lines.append, celsius=lambda: 61.5)
    bench.worker.start()
    bench.put()
    bench.finish()
    assert bench.windows[0].metrics == {"temperature_c": Measure(n=1, sum=61.5, min=61.5, max=61.5)}
