"""The agent beside a bare loop that does the same: frames, start, memory, CPU, swaps.

Frames: the agent's go through mailbox, worker thread, statistics and result line, as on a device;
the bare loop calls crop, prepare, run and read itself, on the same pictures with the same
kind of session; every frame goes through both, in turns. `tiny` is the digits network, `mid` one
of some milliseconds, `large` is of EfficientNet's size; the last two are made here.

Start, memory and CPU are of processes: `edgeml agent run` on a folder of JPEG pictures beside a
process that imports, loads, decodes, prepares and infers the same at the same pace.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.agent_processes import Pair, Setting, busy, import_ms, resident, started
from benchmarks.agent_swaps import swap_rows
from benchmarks.made_models import mobile_net
from benchmarks.measure import Rounds, Row, interleave, main, quartiles, ratio_row, versions
from cloud_sync.messages import DesiredModel
from edge_agent.execution import Execution
from edge_agent.loaded import LoadedRelease
from edge_agent.mailbox import Frame
from edge_agent.resources import take_place
from edge_agent.worker import Worker
from hardware.pipeline import Pipeline, parse
from hardware.runtimes import open_session

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "digits"
MID_SIZE, LARGE_SIZE = 128, 224
WARM_UP = 50
CALLS = 500
GOAL_TINY_MS = 0.2
GOAL_FRAME = 1.05
GOAL_RSS = 1.25
GOAL_IMPORT = 0.5
BARE_LOOP = "bare onnxruntime loop"
BARE_PROCESS = "bare process"

PIPELINE = """
version = 1
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
[[pre]]
op = "resize"
width = {size}
height = {size}
[[pre]]
op = "scale"
factor = 0.00392156862745098
[[pre]]
op = "layout"
to = "NCHW"
[[post]]
op = "softmax"
"""

Image = NDArray[np.uint8]


def run(quick: bool) -> Iterator[Row]:
    """Measure all of it."""
    frames, rounds = (300, 7) if quick else (1000, 9)
    take_place(0, ())  # what the agent does with its process
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mid = mobile_net(folder / "mid.onnx", size=MID_SIZE, width=16, blocks=10)
        large = mobile_net(folder / "large.onnx", size=LARGE_SIZE, width=24, blocks=16, head=1280)
        tiny = _rounds(EXAMPLE / "digits.onnx", _digits(), 28, frames * 4, rounds)
        yield _tiny_row(tiny[50])
        yield _bound_row(rounds)
        medium = _rounds(mid, _pipeline(MID_SIZE), MID_SIZE, frames, rounds)
        yield _frame_row("mid.p50_vs_bare", medium[50])
        yield _frame_row("mid.p99_vs_bare", medium[99])
        bigger = _rounds(large, _pipeline(LARGE_SIZE), LARGE_SIZE, frames // 10, 7)
        yield _frame_row("large.p50_vs_bare", bigger[50])
        yield from _process_rows(folder, large, mid, quick=quick)
        yield from swap_rows(folder / "swaps", 200 if quick else 1000)


def _process_rows(folder: Path, large: Path, mid: Path, *, quick: bool) -> list[Row]:
    text = PIPELINE.format(size=LARGE_SIZE).encode()
    pair = Pair(Setting(folder, large, text, 2 * LARGE_SIZE), 5.0)
    starts = interleave(lambda: pair.agent(started), lambda: pair.bare(started), 7)
    memory = _interleaved(lambda: pair.agent(resident), lambda: pair.bare(resident), 3)
    imports = interleave(lambda: import_ms("edge_agent.agent"), lambda: import_ms("onnxruntime"), 7)
    rows = [
        _row("start.first_inference_vs_bare", starts, "ms", BARE_PROCESS, None),
        _row("rss_vs_bare", memory, "MB", BARE_PROCESS, GOAL_RSS),
        _row("import_vs_onnxruntime", imports, "ms CPU", "import onnxruntime", GOAL_IMPORT),
    ]
    small = PIPELINE.format(size=MID_SIZE).encode()
    for fps in (10.0, 30.0):
        at = Pair(Setting(folder, mid, small, 2 * MID_SIZE), fps)
        look = busy(3.0 if quick else 10.0)
        taken = _interleaved(
            lambda at=at, look=look: at.agent(look),  # type: ignore[misc]
            lambda at=at, look=look: at.bare(look),  # type: ignore[misc]
            2 if quick else 5,
        )
        rows.append(_row(f"cpu_at_{fps:.0f}fps_vs_bare", taken, "% CPU", BARE_PROCESS, None))
    return rows


def _interleaved(ours: Callable[[], float], peer: Callable[[], float], rounds: int) -> Rounds:
    """As `interleave`, for figures that take seconds each: fewer rounds and no warm-up."""
    pairs = [(ours(), peer()) for _ in range(rounds)]
    return Rounds(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def _row(metric: str, rounds: Rounds, unit: str, peer: str, goal: float | None) -> Row:
    said = f"at most {goal} x" if goal else ""
    return ratio_row(metric, rounds, unit=unit, peer=peer, goal=said, at_most=goal)


def _frame_row(metric: str, rounds: Rounds) -> Row:
    return _row(metric, rounds, "ms", BARE_LOOP, GOAL_FRAME)


def _tiny_row(rounds: Rounds) -> Row:
    difference = statistics.median(rounds.differences)
    return Row(
        metric="tiny.overhead_ms_p50",
        value=difference,
        unit="ms",
        peer=f"{BARE_LOOP} p50",
        peer_value=statistics.median(rounds.peer),
        ratio=statistics.median(rounds.ratios),
        spread=quartiles(rounds.ratios),
        n=len(rounds.ours),
        goal=f"at most {GOAL_TINY_MS} ms over",
        holds=difference <= GOAL_TINY_MS,
    )


def _rounds(
    model: Path, pipeline: Pipeline, size: int, frames: int, rounds: int
) -> dict[int, Rounds]:
    """Percentiles of one frame's milliseconds; each frame goes through both, in turns.

    What else the machine does then meets both alike; a block of one and then of the other would
    compare its moods at the 99th percentile.
    """
    images = list(np.random.default_rng(1).integers(0, 256, (16, 2 * size, 2 * size, 3), np.uint8))
    with _agent(model, pipeline) as ours, _bare(model, pipeline) as bare:

        def spent(one: Callable[[Image], None], image: Image) -> float:
            begun = time.perf_counter()
            one(image)
            return (time.perf_counter() - begun) * 1000

        def both(count: int) -> tuple[list[float], list[float]]:
            times: tuple[list[float], list[float]] = [], []
            for index in range(count):
                image = images[index % len(images)]
                sides = ((ours, times[0]), (bare, times[1]))
                for one, side in sides[:: -1 if index % 2 else 1]:
                    side.append(spent(one, image))
            return times

        both(max(WARM_UP, frames // 10))
        found = [both(frames) for _ in range(rounds)]
    return {
        percent: Rounds(
            tuple(float(np.percentile(times[0], percent)) for times in found),
            tuple(float(np.percentile(times[1], percent)) for times in found),
        )
        for percent in (50, 99)
    }


def _bound_row(rounds: int) -> Row:
    """The same arrays again and again, which a session binds, beside onnxruntime's own `run`."""
    session = open_session("onnxruntime", EXAMPLE / "digits.onnx")
    [spec] = session.inputs
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    plain = ort.InferenceSession(
        str(EXAMPLE / "digits.onnx"), options, providers=["CPUExecutionProvider"]
    )
    tensor = np.random.default_rng(1).random((1, 1, 28, 28), np.float32)

    def microseconds(one: Callable[[], object]) -> float:
        times = []
        for _ in range(CALLS):
            begun = time.perf_counter()
            one()
            times.append((time.perf_counter() - begun) * 1e6)
        return statistics.median(times)

    measured = interleave(
        lambda: microseconds(lambda: session.run([tensor])),
        lambda: microseconds(lambda: plain.run(None, {spec.name: tensor})),
        rounds,
    )
    return _row("tiny.bound_run_vs_run", measured, "us", "InferenceSession.run", 1.0)


@contextmanager
def _agent(model: Path, pipeline: Pipeline) -> Iterator[Callable[[Image], None]]:
    done = threading.Event()

    def result(_line: dict[str, Any]) -> None:
        done.set()

    desired = DesiredModel(release="sha256:r", variant="sha256:v", release_version="1")
    execution = Execution(runtime="onnxruntime")
    loaded = LoadedRelease(desired, open_session("onnxruntime", model), pipeline, execution, {})
    worker = Worker("bench", loaded, result)
    worker.start()

    def one(image: Image) -> None:
        done.clear()
        worker.mailbox.put(Frame(source="bench", index=0, captured=time.monotonic(), image=image))
        done.wait()

    yield one
    worker.stop()
    worker.join()


@contextmanager
def _bare(model: Path, pipeline: Pipeline) -> Iterator[Callable[[Image], None]]:
    session = open_session("onnxruntime", model)
    runner = pipeline.runner(session.inputs)

    def one(image: Image) -> None:
        tensors = runner.prepare(runner.crop(image))
        runner.read(session.run(tensors or []))

    yield one
    session.close()


def _pipeline(size: int) -> Pipeline:
    return parse(PIPELINE.format(size=size).encode())


def _digits() -> Pipeline:
    """That of the example, without the step that looks for a digit in the picture."""
    text = (EXAMPLE / "pipeline.toml").read_text()
    head, _, rest = text.partition('[[pre]]\nop = "locate"')
    _, _, steps = rest.partition("[[pre]]")
    text = head.partition("[region]")[0] + "[[pre]]" + steps
    return parse(text.replace('allow = ["region", "threshold"]', 'allow = ["threshold"]').encode())


if __name__ == "__main__":
    main(
        "agent",
        run,
        description="The agent's cost, beside a bare loop on onnxruntime.",
        conditions=versions("onnxruntime", "opencv-python-headless", "numpy") | {"threads": "1"},
    )
