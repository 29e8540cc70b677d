"""How many bits: the pure part of the search for an integer model that a target holds.

An engine stores codes in bytes whatever their width, so there only the kind of range is searched.
Unrolled logic costs by the bit, so there weights are narrowed layer by layer, as long as outputs
on calibration data stay faithful; the accuracy gate decides on evaluation data, and where it says
no the next floor is higher.

    >>> def fidelity(bits):  # 6 dB a bit, the first layer matters most
    ...     return min(6.0 * bits["first"] - 6, 6.0 * bits["last"])
    >>> narrowed({"first": 10, "last": 100}, fidelity, floor=24.0)
    {'first': 5, 'last': 4}
"""

from collections.abc import Callable, Mapping

import numpy as np

from converters.fpga.integer.graph import BITS

FLOORS = (14.0, 18.0, 23.0, 30.0)  # dB of signal to noise, the narrowest first
ACTIVATIONS = (4, 6, 8, 8)  # bits of activations that go with each floor
_ALIKE = 120.0  # dB where nothing differs

Fidelity = Callable[[Mapping[str, int]], float]


def signal_to_noise(wanted: np.ndarray, given: np.ndarray) -> float:
    """How faithful outputs are, in dB; constants in the wanted ones are no signal."""
    noise = float(np.square(wanted - given).sum())
    signal = float(np.square(wanted - wanted.mean(axis=0)).sum())
    if not noise:
        return _ALIKE
    return float(10 * np.log10(signal / noise)) if signal else -_ALIKE


def narrowed(sizes: Mapping[str, int], fidelity: Fidelity, floor: float) -> dict[str, int]:
    """The fewest bits a layer at which fidelity keeps the floor, the largest layers first.

    All layers give up a bit in turn until each has refused to; at worst all keep their 8.

    Args:
        sizes: how many weights each layer has.
        fidelity: of a choice of bits for every layer.
        floor: the least that may be left of it.
    """
    bits = dict.fromkeys(sizes, BITS[-1])
    open_layers = sorted(sizes, key=lambda name: -sizes[name])
    while open_layers:
        for name in tuple(open_layers):
            tried = bits | {name: bits[name] - 1}
            if tried[name] < BITS[0] or fidelity(tried) < floor:
                open_layers.remove(name)
            else:
                bits = tried
    return bits
