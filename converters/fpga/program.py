"""From a schedule to the content of the engine's memories, bit by bit.

A descriptor is 18 words: flags, then addresses and steps (20 bits, two's complement), in bytes of
what is read and in words of `lanes` bytes of what is written, then counts less one, two to a word.
Where input and output have two banks, there are two programs, which differ in their addresses
alone. `docs/fpga-engine.md` has the table.
"""

from dataclasses import replace

import numpy as np

from converters.fpga import estimate
from converters.fpga.schedule import EVERYWHERE, PLACES, Schedule, Step
from edgeml.errors import TargetError
from hardware.fpga import registers as at
from hardware.fpga.program import Placed, Program

MAGIC = 0xE5
END, LANEWISE, LARGEST, SHARED, TWO_INPUTS, UNSIGNED, UNSIGNED_SECOND, BY_TABLE = range(8)
_SHIFT, _TABLE, _MAGIC = 8, 13, 24
_ADDRESS = (1 << 20) - 1
WORDS = 18  # of a descriptor
PARAMETER_BYTES = 8
TABLE_BYTES = 256


def program(scheduled: Schedule) -> Program:
    """The images of a schedule.

    Raises:
        TargetError: its weights, parameters or tables are more than an engine can address.
    """
    words: list[list[int]] = [[] for _ in range(scheduled.banks)]
    weights: list[np.ndarray] = []
    parameters: list[np.ndarray] = []
    tables: list[np.ndarray] = []
    at_weight = at_parameter = 0
    for number, step in enumerate(scheduled.steps):
        is_end = number == len(scheduled.steps) - 1
        bases = at_weight, at_parameter, len(tables)
        for bank, of_bank in enumerate(words):
            moved = _of_bank(scheduled, step, bank)
            of_bank.extend(_descriptor(moved, scheduled.lanes, bases, is_end=is_end))
        weights.append(step.weights.reshape(-1))
        at_weight += step.weights.size // scheduled.lanes
        parameters.append(_parameters(step))
        at_parameter += len(step.bias)
        tables += [step.table] if step.table is not None else []
    if max(at_weight, at_parameter) > PLACES or len(tables) > 1 << 8:
        raise TargetError(
            "The network is larger than an engine can address.",
            why=f"It has {at_weight} words of weights, {at_parameter} channels and "
            f"{len(tables)} tables; the most are {PLACES}, {PLACES} and 256.",
            fix="Use more lanes, or a smaller model.",
        )
    return Program(
        lanes=scheduled.lanes,
        program=np.array(words, "<u4").tobytes(),
        banks=scheduled.banks,
        version=at.VERSION_VALUE,
        weights=np.concatenate(weights).astype(np.int8).tobytes(),
        parameters=np.concatenate(parameters).tobytes(),
        tables=b"".join(table.tobytes() for table in tables),
        activation_words=scheduled.activation_words,
        input=scheduled.input,
        output=scheduled.output,
        cycles=estimate.cycles(scheduled),
    )


def _of_bank(scheduled: Schedule, step: Step, bank: int) -> Step:
    """A step whose input and output of the network are those of a bank."""
    own = scheduled.input, scheduled.output

    def moved(placed: Placed) -> Placed:
        return placed.of_bank(bank, scheduled.lanes) if placed in own else placed

    second = step.second and moved(step.second)
    return replace(step, source=moved(step.source), second=second, target=moved(step.target))


def _parameters(step: Step) -> np.ndarray:
    """{multiplier, bias} in 64 bits for every byte of a pixel's words."""
    multiplier = step.multiplier.astype(np.uint64) << np.uint64(40)
    bias = step.bias.astype(np.int64).view(np.uint64) & np.uint64((1 << 40) - 1)
    packed: np.ndarray = (multiplier | bias).astype("<u8")
    return packed


def _descriptor(step: Step, lanes: int, bases: tuple[int, int, int], *, is_end: bool) -> list[int]:
    weight, parameter, table = bases
    source, target = step.source, step.target
    of_pixel, into_pixel = len(source.channels), len(target.channels) // lanes
    of_row = source.width * of_pixel
    first = source.address * lanes
    top, left = step.pads[:2]
    flags = _MAGIC_BITS | (is_end << END) | (step.lanewise << LANEWISE) | (step.largest << LARGEST)
    flags |= (step.shared << SHARED) | ((step.second is not None) << TWO_INPUTS)
    flags |= (not source.signed) << UNSIGNED
    flags |= (step.second is not None and not step.second.signed) << UNSIGNED_SECOND
    flags |= (step.table is not None) << BY_TABLE
    flags |= (step.shift << _SHIFT) | ((table if step.table is not None else 0) << _TABLE)
    tap = step.second.address * lanes - first if step.second else of_pixel
    height, width = (EVERYWHERE, EVERYWHERE) if step.second else (source.height, source.width)
    return [
        flags,
        (first - top * of_row - left * of_pixel) & _ADDRESS,
        (step.strides[0] * of_row) & _ADDRESS,
        (step.strides[1] * of_pixel) & _ADDRESS,
        of_row & _ADDRESS,
        tap & _ADDRESS,
        _pair(step.rows - 1, step.pixels - 1),
        _pair(step.groups - 1, step.channels - 1),
        _pair(step.kernel[0] - 1, step.kernel[1] - 1),
        _pair(height, width),
        _pair(-top, -left),
        _pair(*step.strides),
        target.address + step.group,
        (into_pixel - step.groups + 1) & _ADDRESS,
        weight,
        parameter,
        _pair(step.low & 0x3FF, step.high & 0x3FF),
        0,
    ]


_MAGIC_BITS = MAGIC << _MAGIC


def _pair(high: int, low: int) -> int:
    return (high & 0xFFFF) << 16 | (low & 0xFFFF)
