"""How far an input is from what the model knows as normal."""

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
)
from hardware.pipeline.results import Anomaly


class Deviate(PostProcessor, frozen=True, kw_only=True, tag="anomaly"):
    """The score of an input, anomalous at or above the threshold.

    `reconstruction` is the mean squared error between the model's input and its first output,
    which an autoencoder makes of it; `output` is a first output that is the score itself.
    """

    task: ClassVar[str] = "anomaly"
    is_fraction: ClassVar[bool] = False

    score: Literal["reconstruction", "output"] = "reconstruction"

    def reader(self, settings: Settings) -> Reader:
        """The reader of one pipeline."""

        def read(outputs: Sequence[Array], seen: Seen) -> Anomaly:
            made = scores_of(outputs)
            if self.score == "output":
                if made.size != 1:
                    raise misfit(f"A score is one number, the model answers {made.size}")
                score = float(made.reshape(()))
            else:
                given = seen.inputs[0] if seen.inputs else np.empty(0)
                if given.size != made.size:
                    raise misfit(f"Its input has {given.size} values, its output {made.size}")
                error = made.reshape(-1) - given.reshape(-1)
                score = float(np.dot(error, error)) / error.size
            return Anomaly(score=score, anomalous=score >= settings.threshold)

        return read
