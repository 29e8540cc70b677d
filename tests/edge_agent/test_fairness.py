"""More frames than there is time for: every model and every source has its share."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_sync.messages import DesiredModel, Window
from edge_agent.execution import Execution
from edge_agent.loaded import load
from edge_agent.mailbox import Frame
from edge_agent.store import ReleaseStore
from edge_agent.workers import Workers
from tests.cloud_sync.releases import make_release

IMAGE = np.random.default_rng(2).integers(0, 256, (24, 24), np.uint8)
WARM, STEADY = 200, 2000
# Frames that come while one is inferred, by model and source.
TWO_MODELS = [{"toy": {"a": 2}, "other": {"b": 2}}]
THREE_SOURCES = [{"toy": {"quick": 20, "slow": 1, "slower": 1}}]


class Flood:
    """Models whose mailboxes are never empty: whoever answers a frame is given the next ones.

    Counted are the answers by (model, source), from the `WARM`-th to the `STEADY`-th after it.
    """

    def __init__(self, feeds: dict[str, dict[str, int]]) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.windows: list[Window] = []
        self.workers = Workers(self._answered, self.windows.extend)
        self._feeds = feeds
        self._seen = 0
        self._lock = threading.Lock()
        self._done = threading.Event()

    def run(self, folder: Path) -> None:
        layout, release = make_release(folder)
        desired = DesiredModel(
            release=release.digest,
            variant=release.variants[0].digest,
            release_version=release.version,
        )
        store = ReleaseStore(layout.folder)
        for model in self._feeds:
            loaded = load(store, desired, {}, Execution(runtime="onnxruntime"))
            self.workers.go_live(model, loaded)
        for model in self._feeds:
            self._feed(model)
        assert self._done.wait(60), self.counts
        self.workers.report(5.0)

    def close(self) -> None:
        for model in self._feeds:
            loaded = self.workers.retire(model)
            if loaded is not None:
                loaded.close()

    def _feed(self, model: str) -> None:
        for source, count in self._feeds[model].items():
            for _ in range(count):
                frame = Frame(source=source, index=0, captured=0.0, image=IMAGE)
                self.workers.deliver(model, frame)

    def _answered(self, line: dict[str, Any]) -> None:
        with self._lock:
            self._seen += 1
            if WARM <= self._seen < WARM + STEADY:
                self.counts[line["model"], line["source"]] += 1
            if self._seen == WARM + STEADY:
                self._done.set()
        if not self._done.is_set():
            self._feed(line["model"])


@pytest.fixture
def flood(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flood]:
    made = Flood(request.param)
    try:
        made.run(tmp_path)
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("flood", TWO_MODELS, indirect=True)
def test_of_two_models_with_too_many_frames_each_has_a_third_of_the_inferences(
    flood: Flood,
) -> None:
    assert sum(flood.counts.values()) == STEADY
    assert min(flood.counts["toy", "a"], flood.counts["other", "b"]) >= STEADY / 3, flood.counts
    assert all(window.replaced > 0 for window in flood.windows)


@pytest.mark.parametrize("flood", THREE_SOURCES, indirect=True)
def test_a_source_that_is_quicker_than_the_others_takes_no_turn_of_theirs(flood: Flood) -> None:
    assert sum(flood.counts.values()) == STEADY
    shares = [flood.counts["toy", source] for source in ("quick", "slow", "slower")]
    assert max(shares) - min(shares) <= 1, flood.counts
