"""A real release that infers real frames, and the local API over it."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_sync.messages import DesiredModel, Window
from edge_agent.api.device import FindPush
from edge_agent.api.http_server import Limits
from edge_agent.api.options import ApiOptions
from edge_agent.api.server import LocalApi
from edge_agent.execution import executions
from edge_agent.loaded import load
from edge_agent.mailbox import Frame
from edge_agent.store import ReleaseStore
from edge_agent.workers import Workers
from hardware.probes import probe
from tests.cloud_sync.releases import make_release

MODEL = "toy"


class Bench:
    """Workers with one running model, and a source that never tires."""

    def __init__(self, folder: Path) -> None:
        layout, release = make_release(folder, "1.2.0")
        [variant] = release.variants
        self.windows: list[Window] = []
        self.results: list[dict[str, Any]] = []
        self.workers = Workers(self.results.append, self._count)
        self.apis: list[LocalApi] = []
        desired = DesiredModel(
            release=release.digest, variant=variant.digest, release_version=release.version
        )
        execution = executions(variant, probe(), cpus=1)[0]
        self.loaded = load(ReleaseStore(layout.folder), desired, {}, execution)
        self.workers.go_live(MODEL, self.loaded)
        self._stop = threading.Event()
        self._feeder = threading.Thread(target=self._feed, daemon=True)

    def _count(self, windows: Iterable[Window]) -> None:
        for window in windows:
            self.windows.append(window)
            for api in self.apis:
                api.count(window)

    def start(self) -> None:
        self._feeder.start()

    def _feed(self) -> None:
        images = np.random.default_rng(7).integers(0, 256, (8, 48, 64, 3), np.uint8)
        index = 0
        while not self._stop.wait(0.004):
            frame = Frame(
                source="belt", index=index, captured=time.monotonic(), image=images[index % 8]
            )
            self.workers.deliver(MODEL, frame)
            index += 1

    def close(self) -> None:
        self._stop.set()
        if self._feeder.ident is not None:
            self._feeder.join(5)
        self.workers.stop()
        self.workers.join(time.monotonic() + 5)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "release")
    yield made
    made.close()


@pytest.fixture
def serve(bench: Bench) -> Iterator[Callable[..., LocalApi]]:
    """Starts an API over the bench: `serve()`, `serve("unix:/path", limits=Limits(...))`."""
    running = []

    def start(
        listen: str = "127.0.0.1:0",
        *,
        limits: Limits | None = None,
        push: FindPush | None = None,
        **options: str,
    ) -> LocalApi:
        api = LocalApi(
            ApiOptions(listen=listen, **options),
            bench.workers,
            device="cam-1",
            push=push,
            limits=limits,
        )
        api.start()
        bench.apis.append(api)
        running.append(api)
        return api

    yield start
    for api in running:
        api.close()
