"""The agent's cost a frame, beside a bare loop on onnxruntime with the same frames.

Both decode nothing, use the same pipeline and the same kind of session, and are given one
frame after another. The bare loop calls crop, prepare, run and read itself; the agent's frames
go through mailbox, worker thread, statistics and result line, as on a device.

`mid` is a model of some milliseconds: the digits network on a picture of 160 x 160.
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
import onnx
from numpy.typing import NDArray

from benchmarks.measure import Rounds, Row, interleave, main, quartiles, ratio_row, versions
from cloud_sync.messages import DesiredModel
from edge_agent.loaded import LoadedRelease
from edge_agent.mailbox import Frame
from edge_agent.worker import Worker
from hardware.pipeline import Pipeline, parse
from hardware.runtimes import open_session

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "digits"
MID_SIZE = 160
GOAL_TINY_MS = 0.2
GOAL_MID_RATIO = 1.05

Image = NDArray[np.uint8]


def run(quick: bool) -> list[Row]:
    """Measure both models."""
    frames, rounds = (60, 7) if quick else (300, 15)
    with tempfile.TemporaryDirectory() as folder:
        tiny = _rounds(EXAMPLE / "digits.onnx", 28, frames * 5, rounds)
        mid = _rounds(_larger(Path(folder) / "mid.onnx"), MID_SIZE, frames, rounds)
    difference = statistics.median(tiny[50].differences)
    return [
        Row(
            metric="tiny.overhead_ms_p50",
            value=difference,
            unit="ms",
            peer="bare onnxruntime loop p50",
            peer_value=statistics.median(tiny[50].peer),
            ratio=statistics.median(tiny[50].ratios),
            spread=quartiles(tiny[50].ratios),
            n=len(tiny[50].ours),
            goal=f"at most {GOAL_TINY_MS} ms over",
            holds=difference <= GOAL_TINY_MS,
        ),
        _row("mid.p50_vs_bare", mid[50]),
        _row("mid.p99_vs_bare", mid[99]),
    ]


def _row(metric: str, rounds: Rounds) -> Row:
    return ratio_row(
        metric,
        rounds,
        unit="ms",
        peer="bare onnxruntime loop",
        goal=f"at most {GOAL_MID_RATIO} x",
        at_most=GOAL_MID_RATIO,
    )


def _rounds(model: Path, size: int, frames: int, rounds: int) -> dict[int, Rounds]:
    """Percentiles of one frame's milliseconds, agent and bare loop in turns."""
    pipeline = _pipeline(size)
    images = list(np.random.default_rng(1).integers(0, 256, (16, 2 * size, 2 * size, 3), np.uint8))
    found: dict[int, list[list[float]]] = {50: [[], []], 99: [[], []]}
    with _agent(model, pipeline) as ours, _bare(model, pipeline) as bare:

        def times(one: Callable[[Image], None], side: int) -> float:
            spent = []
            for index in range(frames):
                begun = time.perf_counter()
                one(images[index % len(images)])
                spent.append((time.perf_counter() - begun) * 1000)
            for percent, sides in found.items():
                sides[side].append(float(np.percentile(spent, percent)))
            return spent[0]

        interleave(lambda: times(ours, 0), lambda: times(bare, 1), rounds)
    # The first of each is the warm-up.
    return {
        percent: Rounds(tuple(sides[0][1:]), tuple(sides[1][1:]))
        for percent, sides in found.items()
    }


@contextmanager
def _agent(model: Path, pipeline: Pipeline) -> Iterator[Callable[[Image], None]]:
    done = threading.Event()

    def result(_line: dict[str, Any]) -> None:
        done.set()

    desired = DesiredModel(release="sha256:r", variant="sha256:v", release_version="1")
    session = open_session("onnxruntime", model)
    worker = Worker("bench", LoadedRelease(desired, session, pipeline, "onnxruntime", {}), result)
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
    text = (EXAMPLE / "pipeline.toml").read_text()
    head, _, rest = text.partition('[[pre]]\nop = "locate"')
    _, _, steps = rest.partition("[[pre]]")
    text = head.partition("[region]")[0] + "[[pre]]" + steps
    return parse(
        text.replace("width = 28", f"width = {size}")
        .replace("height = 28", f"height = {size}")
        .replace('allow = ["region", "threshold"]', 'allow = ["threshold"]')
        .encode()
    )


def _larger(path: Path) -> Path:
    """The digits network for a larger picture: its head takes the mean, so any size will do."""
    model = onnx.load(EXAMPLE / "digits.onnx")
    for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_value = MID_SIZE
    onnx.save(model, str(path))
    return path


if __name__ == "__main__":
    main(
        "agent",
        run,
        description="The agent's cost a frame, beside a bare loop on onnxruntime.",
        conditions=versions("onnxruntime", "opencv-python-headless", "numpy") | {"threads": "1"},
    )
