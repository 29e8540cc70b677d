"""How many samples a tensor's range takes until it would do for others.

Extremes alone never settle: of any samples the last is the widest as often as the first. What
counts for quantization is what a range leaves out, so the range that k samples give is held
against all others, for k = 1, 2, 4, … A value that lies a tenth of the range's width beyond it
costs less than a decibel of the signal, whether it saturates or widens the range.

Data are often sorted by class, so samples are taken in a random order, always the same. A few
hundred of them, evenly spread, tell it; no more are kept, however many there are.
"""

import numpy as np

_MOST_KEPT = 512
_BEYOND = 0.1  # of a range's width
_OTHERS = 0.05  # of the other samples that may lie so far beyond


class Settling:
    """The extremes of each of some tensors, taken one sample after the other."""

    def __init__(self, tensors: int) -> None:
        self.samples = 0
        self.low = np.full(tensors, np.inf, np.float32)
        self.high = np.full(tensors, -np.inf, np.float32)
        self._kept: list[np.ndarray] = []
        self._step = 1

    def add(self, extremes: np.ndarray) -> None:
        """One more sample: the least and the greatest value of each tensor, [2, tensors]."""
        if self.samples % self._step == 0:
            self._kept.append(extremes)
        if len(self._kept) > _MOST_KEPT:
            self._kept, self._step = self._kept[::2], 2 * self._step
        self.samples += 1
        np.minimum(self.low, extremes[0], out=self.low)
        np.maximum(self.high, extremes[1], out=self.high)

    def after(self) -> np.ndarray:
        """For each tensor how many samples were enough, int [tensors].

        The smallest power of 2, at most half of the samples, of which the range holds 95 % of
        the other samples, give or take a tenth of its width; all samples where there is none.
        """
        order = np.random.default_rng(0).permutation(len(self._kept))
        low, high = np.array(self._kept)[order].swapaxes(0, 1)
        found = np.full(len(self.low), self.samples)
        count = 1 << max(0, len(order).bit_length() - 2)  # the largest that is tried
        while count and 2 * count <= len(order):
            least, most = low[:count].min(axis=0), high[:count].max(axis=0)
            with np.errstate(invalid="ignore", over="ignore"):
                margin = np.float32(_BEYOND) * (most - least)
                beyond = (low[count:] < least - margin) | (high[count:] > most + margin)
            found[beyond.mean(axis=0) <= _OTHERS] = count
            count //= 2
        return found
