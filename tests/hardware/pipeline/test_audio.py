"""Features of sound, against scipy and the plainest arithmetic."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft, signal

from edgeml.errors import ModelError
from hardware.pipeline import parse
from hardware.pipeline.audio import MakeMfcc
from hardware.pipeline.definition import Mfcc
from hardware.runtimes import TensorSpec

PIPELINE = b"""
version = 1
task = "keyword"
input = "audio"
labels = ["yes", "no"]
[[pre]]
op = "mfcc"
[[post]]
op = "keyword"
"""
INPUT = (TensorSpec(name="input", shape=("N", 49, 10, 1), dtype="float32"),)


def spoken(seed: int = 0) -> NDArray[np.int16]:
    """A second of something like a vowel, and noise."""
    at = np.arange(16000) / 16000
    tone = sum(np.sin(2 * np.pi * f * at * (1 + 0.1 * at)) / k for k, f in ((1, 140), (2, 700)))
    noise = np.random.default_rng(seed).normal(0, 0.05, 16000)
    return ((tone * np.hanning(16000) + noise) * 8000).astype(np.int16)


def plainly(audio: NDArray[np.int16]) -> NDArray[np.float64]:
    """MFCC one frame and one band at a time, in float64."""
    wave = audio.astype(np.float64) / audio.max()
    window = signal.get_window("hann", 480)
    bins = np.arange(257) * 16000 / 512
    mel = 2595 * np.log10(1 + bins / 700)
    low, high = 2595 * np.log10(1 + np.array([20.0, 4000.0]) / 700)
    edges = np.linspace(low, high, 42)
    features = []
    for start in range(0, 16000 - 480 + 1, 320):
        spectrum = np.abs(fft.rfft(wave[start : start + 480] * window, 512))
        bands = []
        for left, middle, right in zip(edges, edges[1:], edges[2:], strict=False):
            weight = np.interp(mel, [left, middle, right], [0, 1, 0])
            weight[0] = 0
            bands.append(spectrum @ weight)
        cosines = fft.dct(np.log(np.array(bands) + 1e-6), type=2) / np.sqrt(2 * 40)
        features.append(cosines[:10])
    return np.array(features)


def test_features_are_those_of_the_plain_arithmetic() -> None:
    found = MakeMfcc(Mfcc())(spoken())
    expected = plainly(spoken())
    assert found.shape == (49, 10, 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[..., 0], expected, atol=2e-3)


def test_features_are_written_into_the_same_memory_each_time() -> None:
    make = MakeMfcc(Mfcc())
    assert len({make(spoken(seed)).ctypes.data for seed in range(3)}) == 1


def test_silence_and_the_loudest_have_features_too() -> None:
    make = MakeMfcc(Mfcc())
    for value in (0, -32768, 32767):
        assert np.isfinite(make(np.full(16000, value, np.int16))).all()


def test_a_peak_makes_loud_and_soft_alike_and_full_scale_does_not() -> None:
    loud, soft = spoken(), (spoken() // 2).astype(np.int16)
    peak, whole = MakeMfcc(Mfcc()), MakeMfcc(Mfcc(normalise="full_scale"))
    assert np.abs(peak(loud).copy() - peak(soft)).max() < 0.1
    assert np.abs(whole(loud).copy() - whole(soft)).max() > 3


def test_a_window_of_sound_becomes_the_models_input() -> None:
    runner = parse(PIPELINE).runner(INPUT)
    sound = spoken()
    [tensor] = runner.prepare(runner.crop(sound)) or []
    assert tensor.shape == (1, 49, 10, 1)
    with pytest.raises(ModelError, match=r"\[8000\] samples, wanted are 16000"):
        runner.prepare(sound[:8000])
    with pytest.raises(ModelError, match="is no audio"):
        runner.prepare(np.zeros(0, np.int16))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("high = 9000.0", "up to half the rate"),
        ("coefficients = 41", "40 bands have no 41"),
        ("frame = 20000", "does not fit into 16000"),
    ],
)
def test_numbers_that_mean_nothing_together_are_refused(key: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse(PIPELINE.replace(b'op = "mfcc"', b'op = "mfcc"\n' + key.encode()))
