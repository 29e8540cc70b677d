"""A network for an engine of four lanes that a test can compute by hand: y = clamp(x + 1)."""

import numpy as np
from msgspec.structs import replace

from hardware.fpga.program import Placed, Program, Size

HEIGHT, WIDTH, CHANNELS = 2, 3, 4
LANES = 4
SIZE = Size(lanes=LANES, program=64, weights=16, parameters=16, tables=1, activations=32)


def add_one() -> Program:
    """One lanewise layer with weight 1, multiplier 1 and bias 1."""
    pixels = HEIGHT * WIDTH
    placed = [
        Placed(address=at, height=HEIGHT, width=WIDTH, channels=(0, 1, 2, 3), signed=True)
        for at in (0, pixels)
    ]
    flags = 0xE5 << 24 | 0b11  # the end; lanewise
    low, high = -128 & 0x3FF, 127
    descriptor = [flags, 0, WIDTH, 1, WIDTH, 1, (HEIGHT - 1) << 16 | (WIDTH - 1), 0, 0]
    descriptor += [HEIGHT << 16 | WIDTH, 0, 1 << 16 | 1, pixels, 1, 0, 0, low << 16 | high, 0]
    return Program(
        lanes=LANES,
        program=np.array(descriptor, "<u4").tobytes(),
        weights=bytes([1] * LANES),
        parameters=np.array([1 << 40 | 1] * LANES, "<u8").tobytes(),
        tables=b"",
        activation_words=2 * pixels,
        input=placed[0],
        output=placed[1],
        cycles=0,
    )


def twice(program: Program) -> Program:
    """The same layer with the weight -1 after it, back into its input: -(x + 1) + 1."""
    first = np.frombuffer(program.program, "<u4").copy()
    second = first.copy()
    first[0] &= ~np.uint32(1)
    second[1], second[12], second[14] = first[12], first[1], 1
    return replace(
        program,
        program=first.tobytes() + second.tobytes(),
        weights=program.weights + bytes([0xFF] * LANES),
        output=program.input,
    )


def codes(seed: int = 0) -> np.ndarray:
    """A sample of its input."""
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (HEIGHT, WIDTH, CHANNELS))


def expected(given: np.ndarray) -> np.ndarray:
    """What it answers."""
    answer: np.ndarray = np.minimum(given + 1, 127)
    return answer
