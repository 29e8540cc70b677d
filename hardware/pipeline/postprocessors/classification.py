"""Scores to the best labels."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from hardware.pipeline.postprocessors.interface import (
    Array,
    PostProcessor,
    Reader,
    Seen,
    Settings,
    misfit,
    output,
    scores_of,
    softmax,
)
from hardware.pipeline.results import Classification


class Classify(PostProcessor, frozen=True, kw_only=True, tag="classify"):
    """The first output holds a score a label; the one that is used where none is named."""

    task: ClassVar[str] = "classification"
    uses: ClassVar[frozenset[str]] = frozenset({"softmax", "top_k", "threshold"})
    threshold: ClassVar[float] = 0.0

    def wrong(self, labels: tuple[str, ...]) -> str:
        """Labels are what it answers with."""
        return "" if labels else "a classification needs labels"

    def reader(self, settings: Settings) -> Reader:
        """The reader of one pipeline."""

        def read(outputs: Sequence[Array], _seen: Seen) -> Classification:
            if not outputs:
                raise misfit("The model's first output has no scores")
            output(outputs, 0, "scores")
            return _best(scores_of(outputs).reshape(-1), settings)

        return read


def _best(
    scores: np.ndarray[tuple[int], np.dtype[np.float32]], settings: Settings
) -> Classification:
    labels = settings.labels
    if scores.size != len(labels):
        raise misfit(f"It has {len(labels)} labels, the model answers {scores.size} scores")
    # Ordered before the softmax, which rounds near logits to equal probabilities.
    best = np.argsort(-scores, kind="stable")[: settings.k]
    likely = softmax(scores) if settings.softmax else scores
    top = tuple((labels[i], float(likely[i])) for i in best)
    return Classification(
        index=int(best[0]),
        label=top[0][0],
        confidence=top[0][1],
        top=top,
        confident=top[0][1] >= settings.threshold,
    )
