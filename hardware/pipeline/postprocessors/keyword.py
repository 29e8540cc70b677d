"""Scores over time to spotted words: smoothed, held to a threshold, said once.

Source: G. Chen, C. Parada, G. Heigold, Small-footprint keyword spotting using deep neural
networks (2014), section 2.3: posterior smoothing and confidence.
"""

from collections import deque
from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from hardware.pipeline.postprocessors.interface import (
    Array,
    PostProcessor,
    Reader,
    Seen,
    Settings,
    misfit,
    scores_of,
    softmax,
)
from hardware.pipeline.results import Keyword

MAX_SCORES = 1000  # of one source, however short the time between two


class Spot(PostProcessor, frozen=True, kw_only=True, tag="keyword"):
    """A score a word: the mean of the last `window_s` seconds, at most one word in `refractory_s`.

    `ignore` names the labels that are no words, such as silence. Each source has a window of its
    own; one whose time goes backwards begins anew.
    """

    task: ClassVar[str] = "keyword"
    uses: ClassVar[frozenset[str]] = frozenset({"softmax", "threshold"})

    window_s: Annotated[float, Meta(ge=0, le=60)] = 0.5
    refractory_s: Annotated[float, Meta(ge=0, le=60)] = 1.0
    ignore: tuple[str, ...] = ()

    def wrong(self, labels: tuple[str, ...]) -> str:
        """What is ignored is a label, and something is not ignored."""
        unknown = [label for label in self.ignore if label not in labels]
        if unknown:
            return f"{unknown[0]!r} is to be ignored, but is no label"
        return "" if set(labels) - set(self.ignore) else "keyword needs labels that are words"

    def reader(self, settings: Settings) -> Reader:
        """The reader of one pipeline, with the windows of its sources."""
        words = np.array([label not in self.ignore for label in settings.labels])
        heard: dict[str, _Heard] = {}

        def read(outputs: Sequence[Array], seen: Seen) -> Keyword:
            scores = scores_of(outputs).reshape(-1)
            if scores.size != len(settings.labels):
                raise misfit(
                    f"It has {len(settings.labels)} labels, the model answers {scores.size} scores"
                )
            likely = softmax(scores) if settings.softmax else scores
            one = heard.setdefault(seen.source, _Heard(scores.size))
            mean = one.smoothed(likely, seen.at, self.window_s)
            best = int(mean.argmax())
            spotted = bool(words[best]) and float(mean[best]) >= settings.threshold
            spotted = spotted and one.may_spot(seen.at, self.refractory_s)
            return Keyword(
                label=settings.labels[best], confidence=float(mean[best]), spotted=spotted
            )

        return read


class _Heard:
    """What one source said in the last seconds; its scores are kept in one array."""

    def __init__(self, classes: int) -> None:
        self._scores: NDArray[np.float32] = np.zeros((MAX_SCORES, classes), np.float32)
        self._kept: deque[tuple[float, int]] = deque()
        self._next = 0
        self._mean = np.empty(classes, np.float32)
        self._spotted = -np.inf

    def smoothed(
        self, scores: NDArray[np.float32], at: float, window_s: float
    ) -> NDArray[np.float32]:
        if self._kept and at < self._kept[-1][0]:
            self._kept.clear()
            self._spotted = -np.inf
        while self._kept and (
            at - self._kept[0][0] > window_s or len(self._kept) == len(self._scores)
        ):
            self._kept.popleft()
        self._scores[self._next] = scores
        self._kept.append((at, self._next))
        self._next = (self._next + 1) % len(self._scores)
        rows = [row for _, row in self._kept]
        return np.mean(self._scores[rows], axis=0, out=self._mean)

    def may_spot(self, at: float, refractory_s: float) -> bool:
        if at - self._spotted < refractory_s:
            return False
        self._spotted = at
        return True
