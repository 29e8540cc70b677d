"""How long the engine takes and what it needs, before anything is simulated or synthesised.

Cycles follow from the loops. Memories follow from their sizes and the blocks that a family has.
LUTs are a line through what nextpnr counted of engines that were built, for a first refusal only.
"""

from math import ceil

import msgspec

from converters.fpga.schedule import Schedule, Step
from hardware.fpga.program import Size

FETCH = 19  # clocks that a descriptor takes
FLUSH = 17  # and LANES more: from a layer's last tap to its last word
# Of a block RAM: how many words of 32 bits one (ECP5) or two (iCE40) blocks hold.
_BLOCK = {"ecp5": (512, 1), "ice40": (256, 2)}
_SPRAM_WORDS = 16384  # of 16 bits
_LUTS = {"ecp5": 2200, "ice40": 2800}
_LUTS_OF_LANE, _LUTS_OF_MULTIPLIER = 200, 150
_REQUANTIZE_DSP = {"ecp5": 2, "ice40": 4}


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine takes of an FPGA, estimated; the names are those of a board's resources."""

    luts: int
    dsp: int
    bram: int
    spram: int


def cycles_of(step: Step, lanes: int) -> int:
    """The clocks of one layer: a tap each, one more to write, and never less than a lane each."""
    groups = step.rows * step.pixels * step.groups
    return groups * max(step.taps + 1, lanes) + FETCH + FLUSH + lanes


def cycles(scheduled: Schedule) -> int:
    """The clocks of an inference, from its start to its end."""
    return sum(cycles_of(step, scheduled.lanes) for step in scheduled.steps)


def large(size: Size, family: str, spram: int) -> frozenset[str]:
    """Memories that go to single-port RAM, where the part has so many blocks of it."""
    words, _ = _BLOCK[family]
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
    words, blocks = _BLOCK[family]
    banks = size.lanes // 4
    memories = {
        "activations": (size.activations, banks),
        "weights": (size.weights, banks),
        "parameters": (size.parameters, 2),
        "program": (size.program, 1),
        "tables": (size.tables * 64, 1),
    }
    outside = large(size, family, spram)
    multipliers = size.lanes + _REQUANTIZE_DSP[family]
    return Need(
        luts=_LUTS[family]
        + size.lanes * _LUTS_OF_LANE
        + (0 if has_dsp else multipliers * _LUTS_OF_MULTIPLIER),
        dsp=multipliers if has_dsp else 0,
        bram=sum(
            width * blocks * ceil(depth / words)
            for name, (depth, width) in memories.items()
            if name not in outside
        ),
        spram=sum(2 * banks * ceil(memories[name][0] / _SPRAM_WORDS) for name in outside),
    )
