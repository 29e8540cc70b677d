"""In the steady state a pipeline allocates nothing that is large."""

import tracemalloc

import numpy as np
import pytest

from hardware.pipeline import parse
from hardware.pipeline.runner import PipelineRunner
from hardware.runtimes import TensorSpec

SMALL = 16 << 10  # views, lists and small results; a picture of 64 x 64 has 48 KiB as floats
FRAME = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
SIDE = 64
IMAGE = (TensorSpec(name="image", shape=(1, 3, SIDE, SIDE), dtype="float32"),)
AUDIO = (TensorSpec(name="features", shape=(1, 499, 10, 1), dtype="float32"),)

SIZE = f"width = {SIDE}\nheight = {SIDE}\n"
RESIZE = f'[[pre]]\nop = "resize"\n{SIZE}'
BOX = f'[[pre]]\nop = "letterbox"\n{SIZE}'
COLOUR = '[[pre]]\nop = "colour"\nto = "rgb"\n'
SCALE = '[[pre]]\nop = "scale"\nfactor = 0.0039\nmean = [0.4, 0.5, 0.6]\n'
LAYOUT = '[[pre]]\nop = "layout"\nto = "NCHW"\n'
REGION = "[region]\nx = 0.1\ny = 0.1\nwidth = 0.8\nheight = 0.8\n"


def largest(text: str, inputs: tuple[TensorSpec, ...], frame: np.ndarray) -> int:
    """The bytes that a call takes beyond those before it, where no other thread takes any."""
    runner = parse(("version = 1\n" + text).encode()).runner(inputs)
    for _ in range(3):
        runner.prepare(runner.crop(frame))
    return min(peak(runner, frame) for _ in range(3))


def peak(runner: PipelineRunner, frame: np.ndarray, rounds: int = 5) -> int:
    """The bytes at the peak of some calls beyond those before them, of all threads."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(rounds):
            assert runner.prepare(runner.crop(frame)) is not None
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "steps",
    [
        RESIZE + SCALE + LAYOUT,
        COLOUR + RESIZE + SCALE + LAYOUT,
        RESIZE + COLOUR + SCALE + LAYOUT,
        BOX + COLOUR + SCALE + LAYOUT,
        COLOUR + BOX + SCALE + LAYOUT + REGION,
        RESIZE + SCALE + COLOUR + LAYOUT,
    ],
)
def test_no_array_is_made_for_a_frame(steps: str) -> None:
    assert largest('labels = ["a"]\n' + steps, IMAGE, FRAME) < SMALL


def test_the_measure_sees_an_array_that_is_made() -> None:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = np.zeros((1, 3, SIDE, SIDE), np.float32)
    assert tracemalloc.get_traced_memory()[1] - before >= kept.nbytes > SMALL
    tracemalloc.stop()


def test_no_array_is_made_for_a_window_of_sound() -> None:
    text = (
        'task = "keyword"\ninput = "audio"\nlabels = ["a"]\n[[pre]]\nop = "mfcc"\n'
        'samples = 160000\n[[post]]\nop = "keyword"\n'
    )
    sound = np.random.default_rng(1).integers(-999, 999, 160_000).astype(np.int16)
    # A spectrum of these ten seconds has a MiB; numpy's loops have buffers of their own.
    assert largest(text, AUDIO, sound) < 256 << 10
