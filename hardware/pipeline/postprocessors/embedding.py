"""Vectors of length one, and the nearest of a small gallery."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from hardware.pipeline.postprocessors.interface import (
    Array,
    PostProcessor,
    Reader,
    Seen,
    Settings,
    misfit,
    scores_of,
)
from hardware.pipeline.results import Embedding

TINY = 1e-12


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of a gallery: a label and its vector, of any length."""

    label: str
    vector: Annotated[tuple[Annotated[float, Meta(ge=-1e6, le=1e6)], ...], Meta(min_length=1)]


class Embed(PostProcessor, frozen=True, kw_only=True, tag="embedding"):
    """The first output, divided by its length; with a gallery, its nearest by cosine.

    At or above the threshold the nearest is the label; below it, or without a gallery, the label
    is empty.
    """

    task: ClassVar[str] = "embedding"

    gallery: tuple[Known, ...] = ()

    def wrong(self, labels: tuple[str, ...]) -> str:
        """All vectors of a gallery have the same size, and a direction."""
        del labels
        if len({len(known.vector) for known in self.gallery}) > 1:
            return "the vectors of the gallery have different sizes"
        if any(not any(known.vector) for known in self.gallery):
            return "a vector of the gallery has length zero"
        return ""

    def reader(self, settings: Settings) -> Reader:
        """The reader of one pipeline."""
        gallery = np.array([known.vector for known in self.gallery], np.float32)
        if self.gallery:
            gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)

        def read(outputs: Sequence[Array], _seen: Seen) -> Embedding:
            vector = scores_of(outputs).reshape(-1)
            vector = vector / max(float(np.linalg.norm(vector)), TINY)
            if not self.gallery:
                return Embedding(vector=vector)
            if gallery.shape[1] != vector.size:
                raise misfit(
                    f"The gallery has vectors of {gallery.shape[1]} values, the model answers "
                    f"{vector.size}"
                )
            near = gallery @ vector
            best = int(near.argmax())
            confident = float(near[best]) >= settings.threshold
            return Embedding(
                vector=vector,
                label=self.gallery[best].label if confident else "",
                confidence=float(near[best]),
                confident=confident,
            )

        return read
