"""A network for an engine of four lanes that a test can compute by hand: y = clamp(x + 1)."""

import numpy as np
from msgspec.structs import replace

from hardware.fpga import registers as at
from hardware.fpga.program import DESCRIPTOR_WORDS, Placed, Program, Size

HEIGHT, WIDTH, CHANNELS = 2, 3, 4
LANES = 4
SIZE = Size(lanes=LANES, program=64, weights=16, parameters=16, tables=1, activations=32)
TAPS = 5000  # of a slow network


def add_one() -> Program:
    """One lanewise layer with weight 1, multiplier 1 and bias 1."""
    pixels = HEIGHT * WIDTH
    placed = [
        Placed(address=place, height=HEIGHT, width=WIDTH, channels=(0, 1, 2, 3), signed=True)
        for place in (0, pixels)
    ]
    flags = 0xE5 << 24 | 0b11  # the end; lanewise
    low, high = -128 & 0x3FF, 127
    row = WIDTH * LANES
    descriptor = [flags, 0, row, LANES, row, LANES, (HEIGHT - 1) << 16 | (WIDTH - 1), 0, 0]
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
        version=at.VERSION_VALUE,
    )


def twice(program: Program) -> Program:
    """The same layer with the weight -1 after it, back into its input: -(x + 1) + 1."""
    first = np.frombuffer(program.program, "<u4").copy()
    second = first.copy()
    first[0] &= ~np.uint32(1)
    second[1], second[12], second[14] = first[12] * LANES, first[1] // LANES, 1
    return replace(
        program,
        program=first.tobytes() + second.tobytes(),
        weights=program.weights + bytes([0xFF] * LANES),
        output=program.input,
    )


def in_two_banks(program: Program) -> Program:
    """The same network with input and output twice: the second program reads and writes behind."""
    assert program.output
    words = program.input.words(LANES)
    first = np.frombuffer(program.program, "<u4").copy()
    first[12] += words  # the output comes after both banks of the input
    second = first.copy()
    second[1] += words * LANES
    second[12] += words
    output = replace(program.output, address=int(first[12]))
    both = first.tobytes() + second.tobytes()
    return replace(program, program=both, output=output, activation_words=4 * words, banks=2)


def slow(program: Program, taps: int = TAPS) -> Program:
    """The same layer, which takes each number so often, and the largest of those.

    Each time it takes another weight, the same after as many as an engine of `SIZE` has.
    """
    layers = np.frombuffer(program.program, "<u4").reshape(-1, DESCRIPTOR_WORDS).copy()
    layers[:, 0] |= 1 << 2
    layers[:, 4] = 0
    layers[:, 8] = taps - 1 << 16
    layers[:, 9] = 0xFFFFFFFF
    weights = program.weights[:LANES] * SIZE.weights
    return replace(program, program=layers.tobytes(), weights=weights)


def codes(seed: int = 0) -> np.ndarray:
    """A sample of its input."""
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (HEIGHT, WIDTH, CHANNELS))


def expected(given: np.ndarray) -> np.ndarray:
    """What it answers."""
    answer: np.ndarray = np.minimum(given + 1, 127)
    return answer
