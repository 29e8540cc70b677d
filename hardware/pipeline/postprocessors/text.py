"""Connectionist temporal classification to text, greedily.

Source: A. Graves et al., Connectionist Temporal Classification (2006), section 3.2.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

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
from hardware.pipeline.results import Text


class Ctc(PostProcessor, frozen=True, kw_only=True, tag="ctc"):
    """Steps of scores to characters: the best of each step, repeats joined, blanks left out.

    The first output is [1, steps, classes], or [steps, 1, classes] as `axes` says. `charset` or
    the pipeline's labels name the characters; `blank` says where the class that is none stands,
    which may be among the labels or not.
    """

    task: ClassVar[str] = "text"
    uses: ClassVar[frozenset[str]] = frozenset({"softmax", "threshold"})

    charset: str = ""
    blank: Literal["first", "last"] = "first"
    axes: Literal["NTC", "TNC"] = "NTC"

    def wrong(self, labels: tuple[str, ...]) -> str:
        """Either says which characters there are."""
        if bool(self.charset) == bool(labels):
            return "ctc needs its characters once: as labels or as its charset"
        return ""

    def reader(self, settings: Settings) -> Reader:
        """The reader of one pipeline."""
        characters = np.array(list(self.charset) or settings.labels, np.object_)
        none = np.array([""], np.object_)
        sides = (none, characters) if self.blank == "first" else (characters, none)
        with_blank = np.concatenate(sides)
        batch = self.axes.index("N")

        def read(outputs: Sequence[Array], _seen: Seen) -> Text:
            scores = scores_of(outputs)
            if scores.ndim != 3 or scores.shape[batch] != 1:  # noqa: PLR2004
                raise misfit(f"It wants scores {self.axes} of one line, not {list(scores.shape)}")
            steps = scores.reshape(-1, scores.shape[2])
            classes = steps.shape[1]
            if classes not in {len(characters), len(with_blank)}:
                raise misfit(
                    f"It has {len(characters)} characters and a blank, the model answers "
                    f"{classes} classes"
                )
            blank = 0 if self.blank == "first" else classes - 1
            best = steps.argmax(axis=1)
            kept = best != blank
            kept[1:] &= best[1:] != best[:-1]
            if not kept.any():
                return Text(text="", confidence=0.0, confident=False)
            # Only the steps that stay are read, so only they need probabilities.
            chosen = softmax(steps[kept]) if settings.softmax else steps[kept]
            confidence = float(chosen.max(axis=1).mean())
            known = characters if classes == len(characters) else with_blank
            text = "".join(known[best[kept]])
            return Text(
                text=text, confidence=confidence, confident=confidence >= settings.threshold
            )

        return read
