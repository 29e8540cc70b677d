"""Weights in a memory outside of the FPGA: a network changed so that each layer fetches its own.

The engine's weight memory then holds one layer's, and not all. A serial flash gives a word of 32
bits in 64 clocks, and nothing is computed meanwhile: an inference takes 16 clocks a byte longer.
"""

import msgspec
import numpy as np

from hardware.fpga.program import DESCRIPTOR_WORDS, Program

FAR_BASE = 1 << 20  # of the flash: behind every bitstream of an iCE40 or a 25F
CLOCKS_A_BYTE, CLOCKS_A_LAYER = 16, 67
BLOCK = 256  # bytes, on which a layer's weights begin
_SHARED, _FAR, _LAST = 1 << 3, 1 << 21, 1
_FLAGS, _CHANNELS, _KERNEL, _FIRST_WEIGHT, _LOAD = 0, 7, 8, 14, 17


def moved(program: Program) -> Program:
    """The same network with its weights in `far`, each layer's from a block on."""
    layers = _descriptors(program)
    image = bytearray()
    blocks: dict[int, int] = {}  # where weights lie that another bank's layer has, too
    largest = 0
    for layer in layers:
        words, start = _weight_words(layer), int(layer[_FIRST_WEIGHT])
        weights = program.weights[start * program.lanes : (start + words) * program.lanes]
        layer[_FLAGS] |= _FAR
        if start not in blocks:
            blocks[start] = len(image) // BLOCK
            image += weights + bytes(-len(weights) % BLOCK)
        layer[_LOAD] = words - 1 << 16 | blocks[start]
        layer[_FIRST_WEIGHT] = 0
        largest = max(largest, words)
    return msgspec.structs.replace(
        program,
        program=layers.tobytes(),
        weights=b"",
        far=bytes(image),
        weight_words=largest,
        cycles=program.cycles
        + CLOCKS_A_BYTE * len(program.weights)
        + CLOCKS_A_LAYER * len(layers) // program.banks,
    )


def alone(program: Program, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A layer as a program of its own, and the words, uint32, that it must fetch."""
    layer = _descriptors(program)[number]
    start = int(layer[_LOAD] & 0xFFFF) * BLOCK
    weights = program.far[start : start + _weight_words(layer) * program.lanes]
    layer[_FLAGS] |= _LAST
    return layer, np.frombuffer(weights, "<u4")


def _descriptors(program: Program) -> np.ndarray:
    return np.frombuffer(program.program, "<u4").reshape(-1, DESCRIPTOR_WORDS).copy()


def _weight_words(layer: np.ndarray) -> int:
    """Of `lanes` bytes: one for each tap of each group, of one group where they are shared."""
    high, low = (layer >> 16).astype(int) + 1, (layer & 0xFFFF).astype(int) + 1
    groups = 1 if layer[_FLAGS] & _SHARED else int(high[_CHANNELS])
    return groups * int(high[_KERNEL] * low[_KERNEL] * low[_CHANNELS])
