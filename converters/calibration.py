"""Calibration samples as a model takes them, streamed anew each time they are asked for."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from converters.loading import Loaded
from converters.progress import Progress, Silent


class Calibration:
    """The calibration data of a conversion; samples in which nothing is to be inferred left out.

    Args:
        loaded: the data, and the task that prepares them.
        progress: told how many samples were gone over, where all of them are.
    """

    def __init__(self, loaded: Loaded, progress: Progress) -> None:
        self._loaded = loaded
        self._progress = progress

    def __len__(self) -> int:
        """How many samples there are, those left out among them."""
        return len(self._loaded.calibration)

    def first(self, count: int) -> Iterator[Sequence[np.ndarray]]:
        """The first few, the caller's to keep."""
        for feed in islice(self._feeds(Silent()), count):
            yield [np.array(tensor) for tensor in feed]

    def told(self) -> Iterator[Sequence[np.ndarray]]:
        """All of them, with progress; tensors are valid until the next."""
        return self._feeds(self._progress)

    def _feeds(self, progress: Progress) -> Iterator[Sequence[np.ndarray]]:
        for index, sample in enumerate(self._loaded.calibration):
            tensors = self._loaded.task.prepare(sample)
            progress.advance(index + 1)
            if tensors is not None:
                yield tensors
