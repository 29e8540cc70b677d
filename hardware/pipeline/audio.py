"""Audio to features: what a keyword spotter sees of a second of sound.

As MLPerf Tiny's keyword spotting computes them (github.com/mlcommons/tiny,
benchmark/training/keyword_spotting) with TensorFlow's `tf.signal`: magnitude of a short-time
Fourier transform with a periodic Hann window, padded to a power of two; triangles on the mel
scale of 2595 log10(1 + f / 700), without the constant; natural logarithm of what is above 1e-6;
cosine transform of type 2 as HTK scales it. All matrices are computed once.
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from hardware.pipeline.definition import Mfcc

Floats = NDArray[np.float32]

FLOOR = 1e-6
FULL_SCALE = 32768.0
SILENCE = 1e-9


class MakeMfcc:
    """See `definition.Mfcc`. Takes int16 or float32 [samples]."""

    def __init__(self, definition: Mfcc) -> None:
        self._samples = definition.samples
        self._peak = definition.normalise == "peak"
        count = 1 + (definition.samples - definition.frame) // definition.hop
        size = 1 << (definition.frame - 1).bit_length()
        self._audio = np.zeros(definition.samples, np.float32)
        step = self._audio.strides[0]
        self._frames = as_strided(
            self._audio,
            (count, definition.frame),
            (definition.hop * step, step),
            writeable=False,
        )
        self._window = (
            0.5 - 0.5 * np.cos(2 * np.pi * np.arange(definition.frame) / definition.frame)
        ).astype(np.float32)
        self._padded = np.zeros((count, size), np.float32)
        bins = size // 2 + 1
        self._transformed = np.empty((count, size, 2), np.float32)
        self._spectra = self._transformed.view(np.complex64)[:, :bins, 0]
        self._magnitudes = np.empty((count, bins), np.float32)
        self._mel = mel_matrix(definition, bins)
        self._bands = np.empty((count, definition.bands), np.float32)
        self._cosines = cosine_matrix(definition.bands, definition.coefficients)
        self._out = np.empty((count, definition.coefficients), np.float32)

    def __call__(self, audio: NDArray[Any]) -> Floats:
        if audio.shape != (self._samples,):
            raise ValueError(f"{list(audio.shape)} samples, wanted are {self._samples}")
        # What overflows becomes infinity, which the reader of the outputs refuses by name.
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(self._audio, audio, casting="same_kind")
            self._audio /= self._loudest(audio.dtype)
            np.multiply(self._frames, self._window, out=self._padded[:, : self._window.size])
            # numpy's own transform makes arrays of twice the precision for each call.
            cv2.dft(self._padded, self._transformed, cv2.DFT_ROWS | cv2.DFT_COMPLEX_OUTPUT)
            np.abs(self._spectra, out=self._magnitudes)
            np.matmul(self._magnitudes, self._mel, out=self._bands)
            self._bands += np.float32(FLOOR)
            np.log(self._bands, out=self._bands)
            np.matmul(self._bands, self._cosines, out=self._out)
        return self._out[..., np.newaxis]

    def _loudest(self, dtype: np.dtype[Any]) -> np.float32:
        if self._peak:
            return np.float32(max(float(self._audio.max()), SILENCE))
        return np.float32(FULL_SCALE if dtype.kind == "i" else 1.0)


def mel_matrix(definition: Mfcc, bins: int) -> Floats:
    """Weights [bins, bands] from a linear spectrum to mel bands."""
    low, high = (1127.0 * math.log1p(hertz / 700.0) for hertz in (definition.low, definition.high))
    edges = np.linspace(low, high, definition.bands + 2)
    linear = np.linspace(0.0, definition.rate / 2, bins)
    at = 1127.0 * np.log1p(linear / 700.0)[:, np.newaxis]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0  # the constant
    return np.asarray(weights, np.float32)


def cosine_matrix(bands: int, coefficients: int) -> Floats:
    """The cosine transform of type 2, [bands, coefficients], each row scaled by sqrt(2 / bands)."""
    k, n = np.arange(coefficients), np.arange(bands)[:, np.newaxis]
    matrix = np.cos(np.pi / bands * (n + 0.5) * k) * np.sqrt(2.0 / bands)
    return np.asarray(matrix, np.float32)
