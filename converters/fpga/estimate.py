"""How long the engine takes and what it needs, before anything is simulated or synthesised.

Cycles follow from the loops and the lengths of the gateware's pipelines, exactly. Memories follow
from their sizes and the blocks that a family has. LUTs are a line through what nextpnr counted of
engines that were built, those of unrolled logic one through what da4ml said (docs/fpga.md has the
errors).
"""

from functools import cache
from math import ceil

import msgspec
import numpy as np

from converters.fpga.integer.graph import Conv, IntegerGraph
from converters.fpga.schedule import Schedule, Step
from hardware.fpga.program import Size

FETCH = 19  # clocks that a descriptor takes
FLUSH = 17  # and LANES more: from a layer's last tap to its end
WRITE = 12  # and LANES more: from a group's last tap to its word
_SPRAM_WORDS = 16384  # of 16 bits
# Of a weight that is not zero: what da4ml took for nets of 1,000 to 3,000 weights.
_LUTS_A_BIT = 4.8
CUTOFF = 5  # levels of unrolled logic between two registers
_REQUANTIZED = 3  # levels: the bias, and both ends of the clamp


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine takes of a family's FPGAs.

    Attributes:
        words: of 32 bits that so many `blocks` of RAM hold.
        luts: without any lane, and for each `luts_of_lane`; `luts_of_multiplier` where no DSP is.
        requantize: multipliers beside those of the lanes.
    """

    words: int
    blocks: int
    luts: int
    luts_of_lane: int
    luts_of_multiplier: int
    requantize: int


FAMILIES = {
    "ecp5": Family(
        words=512, blocks=1, luts=3600, luts_of_lane=185, luts_of_multiplier=150, requantize=2
    ),
    "ice40": Family(
        words=256, blocks=2, luts=3100, luts_of_lane=200, luts_of_multiplier=150, requantize=2
    ),
    "gowin": Family(
        words=512, blocks=1, luts=4430, luts_of_lane=205, luts_of_multiplier=250, requantize=2
    ),
}


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What gateware takes of an FPGA, estimated; the names are those of a board's resources."""

    luts: int
    dsp: int = 0
    bram: int = 0
    spram: int = 0


def cycles_of(step: Step, lanes: int) -> int:
    """The clocks of one layer, from its descriptor to its last word."""
    groups = step.rows * step.pixels * step.groups
    return FETCH + running(groups, step.taps, lanes) + FLUSH + lanes


def cycles(scheduled: Schedule) -> int:
    """The clocks of an inference, from its start to its end."""
    return sum(cycles_of(step, scheduled.lanes) for step in scheduled.steps)


@cache
def running(groups: int, taps: int, lanes: int) -> int:
    """The clocks from a layer's first tap to its last.

    A tap a clock, but none while a word is written; and last taps are `lanes` clocks apart, because
    the lanes leave one by one. Soon the same waits come again and again: those are multiplied.

        >>> running(groups=1, taps=9, lanes=8), running(groups=1000, taps=1, lanes=8)
        (9, 7993)
    """
    clocks = taps
    waits: tuple[int, ...] = (lanes + WRITE,)
    seen: dict[tuple[int, ...], tuple[int, int]] = {}
    done = 1
    while done < groups:
        if waits in seen:
            before, then = seen[waits]
            rounds = (groups - done) // (done - before)
            clocks += rounds * (clocks - then)
            done += rounds * (done - before)
            seen = {}
            if done == groups:
                break
        seen[waits] = done, clocks
        more, waits = _group(waits, taps, lanes)
        clocks += more
        done += 1
    return clocks


def _group(waits: tuple[int, ...], taps: int, lanes: int) -> tuple[int, tuple[int, ...]]:
    """The clocks to a group's last tap, and when words that are on their way are then written."""
    clocks = taps
    for write in waits:
        clocks += write <= clocks
    if clocks < lanes:
        clocks = lanes + (lanes in waits)
    return clocks, (*(write - clocks for write in waits if write > clocks), lanes + WRITE)


def large(size: Size, family: str, spram: int) -> frozenset[str]:
    """Memories that go to single-port RAM, where the part has so many blocks of it."""
    words = FAMILIES[family].words
    found, taken = set(), 0
    for name in ("activations", "weights"):
        depth, banks = getattr(size, name), size.lanes // 4
        blocks = 2 * banks * ceil(depth / _SPRAM_WORDS)
        if depth * banks >= words * 8 and taken + blocks <= spram:
            found.add(name)
            taken += blocks
    return frozenset(found)


def need(size: Size, family: str, *, has_dsp: bool, spram: int) -> Need:
    """What an engine takes; large memories go to single-port RAM where the part has some."""
    of = FAMILIES[family]
    banks = size.lanes // 4
    memories = {
        "activations": (size.activations, banks),
        "weights": (size.weights, banks),
        "parameters": (size.parameters, 2),
        "program": (size.program, 1),
        "tables": (size.tables * 64, 1),
    }
    outside = large(size, family, spram)
    multipliers = size.lanes + of.requantize
    return Need(
        luts=of.luts
        + size.lanes * of.luts_of_lane
        + (0 if has_dsp else multipliers * of.luts_of_multiplier),
        dsp=multipliers if has_dsp else 0,
        bram=sum(
            width * of.blocks * ceil(depth / of.words)
            for name, (depth, width) in memories.items()
            if name not in outside
        ),
        spram=sum(2 * banks * ceil(memories[name][0] / _SPRAM_WORDS) for name in outside),
    )


def logic_luts(graph: IntegerGraph) -> int:
    """What unrolled logic takes, roughly: it grows with the bits of all weights at all places."""
    total = 0
    for layer in graph.layers:
        if isinstance(layer, Conv):
            height, width, _ = graph.tensors[layer.output].shape
            total += height * width * int(_bits_of(layer).sum())
    return round(_LUTS_A_BIT * total)


def logic_cycles(graph: IntegerGraph) -> int:
    """The clocks of unrolled logic, roughly: levels of adders on the longest way, and its input."""
    levels = {graph.input: 0}
    for layer in graph.layers:
        most = int(_bits_of(layer).max()) if isinstance(layer, Conv) else 1
        adders = _REQUANTIZED + max(0, most - 1).bit_length()
        levels[layer.output] = max(levels[name] for name in layer.inputs) + adders
    return 1 + ceil(levels[graph.output] / CUTOFF)


def _bits_of(layer: Conv) -> np.ndarray:
    """Of each output's weights, the bits that are not zero: what has to be added."""
    weights = np.abs(layer.weights)
    bits = sum((weights >> bit) & 1 for bit in range(layer.weight_bits))
    counted: np.ndarray = np.asarray(bits).reshape(len(weights), -1).sum(axis=1)
    return counted
