"""A thousand swaps of a release under load: frames lost, memory grown."""

import itertools
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.agent_device import MODEL, make_release
from benchmarks.made_models import mobile_net
from benchmarks.measure import Row
from cloud_sync.messages import DesiredModel, Window
from edge_agent.execution import Execution
from edge_agent.loaded import load
from edge_agent.mailbox import Frame
from edge_agent.memory import rss_bytes
from edge_agent.resources import give_back
from edge_agent.store import ReleaseStore
from edge_agent.worker import Worker

WARM_UP = 50
SIZE = 32
MAX_GROWTH = 0.02


@dataclass
class Counts:
    """What became of the frames; the windows themselves would be what grows."""

    accepted: int = 0
    settled: int = 0
    errors: int = 0

    def add(self, windows: Iterable[Window]) -> None:
        """Count what windows say."""
        for w in windows:
            self.accepted += w.accepted
            self.settled += w.inferred + w.empty + w.errors + w.replaced
            self.errors += w.errors


def swap_rows(folder: Path, swaps: int) -> list[Row]:
    """Swap two releases in turns while frames come as quickly as they are taken."""
    text = (
        'version = 1\nlabels = ["0","1","2","3","4","5","6","7","8","9"]\n'
        f'[[pre]]\nop = "resize"\nwidth = {SIZE}\nheight = {SIZE}\n'
        '[[pre]]\nop = "scale"\nfactor = 0.0039\n[[pre]]\nop = "layout"\nto = "NCHW"\n'
        '[[post]]\nop = "softmax"\n'
    )
    releases: list[tuple[ReleaseStore, DesiredModel]] = []
    for index in range(2):
        beside = folder / str(index)
        beside.mkdir(parents=True)
        model = mobile_net(beside / "m.onnx", size=SIZE, width=8 + index, blocks=4)
        desired = make_release(beside, model, text.encode(), f"1.{index}.0")
        releases.append((ReleaseStore(beside / "releases"), desired))
    answered = itertools.count()
    answers = 0

    def on_result(_line: Mapping[str, Any]) -> None:
        nonlocal answers
        answers = next(answered) + 1

    execution = Execution(runtime="onnxruntime")
    worker = Worker(MODEL, load(*releases[0], {}, execution), on_result)
    worker.start()
    stop = threading.Event()
    feeder = threading.Thread(target=_feed, args=[worker, stop])
    feeder.start()
    counts = Counts()
    before = 0
    for swap in range(swaps + WARM_UP):
        if swap == WARM_UP:
            before = rss_bytes()
        gone, taken = worker.swap(load(*releases[(swap + 1) % 2], {}, execution))
        counts.add(taken)
        gone.close()
        give_back()
    after = rss_bytes()
    stop.set()
    feeder.join()
    while any(worker.mailbox.waiting(source) for source in worker.mailbox.sources()):
        time.sleep(0.01)
    worker.stop()
    worker.join()
    counts.add(worker.windows())
    lost = counts.accepted - counts.settled + counts.errors
    growth = after / before - 1
    return [
        Row(
            metric="swap.frames_lost",
            value=float(lost),
            unit=f"of {counts.accepted} frames in {swaps} swaps",
            goal="none",
            holds=lost == 0,
        ),
        Row(
            metric="swap.rss_growth",
            value=growth,
            unit=f"of {before / (1 << 20):.0f} MB",
            goal=f"at most {MAX_GROWTH:.0%}",
            holds=growth <= MAX_GROWTH,
        ),
    ]


def _feed(worker: Worker, stop: threading.Event) -> None:
    images = np.random.default_rng(1).integers(0, 256, (4, 2 * SIZE, 2 * SIZE, 3), np.uint8)
    for index in itertools.count():
        if stop.wait(0.001):
            return
        image = images[index % len(images)]
        worker.mailbox.put(
            Frame(source="camera", index=index, captured=time.monotonic(), image=image)
        )
