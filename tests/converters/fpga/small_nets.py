"""A net that takes seconds from Verilog to a bitstream, and a process that does that to be killed.

python -m tests.converters.fpga.small_nets FOLDER CACHE
"""

import sys
from pathlib import Path

import numpy as np

from converters.cache import Cache
from converters.fpga import built
from converters.fpga.integer.graph import Conv, Host, IntegerGraph, Layer, Requantize, Tensor

INPUTS, HIDDEN, CLASSES = 3, 4, 3
SETTINGS: dict[str, str | int | float | bool] = {
    "architecture": "dataflow",
    "until": "bitstream",
    "family": "ice40",
    "part": "up5k",
    "luts": 5280,
    "dsp": 8,
    "bram": 30,
    "spram": 4,
    "lanes": 4,
    "clock_mhz": 12.0,
    "seeds": 1,
}
CODES = np.random.default_rng(1).integers(-8, 8, (16, 1, 1, INPUTS))


def net_of_two_layers() -> IntegerGraph:
    """Two dense layers of weights of 3 bits and activations of 4."""
    rng = np.random.default_rng(0)
    sizes = {"x": INPUTS, "h": HIDDEN, "y": CLASSES}
    tensors = {n: Tensor(n, (1, 1, size), 4, n != "h", 1.0) for n, size in sizes.items()}

    def dense(given: str, made: str, low: int, high: int) -> Layer:
        outputs = sizes[made]
        weights = rng.integers(-3, 4, (outputs, 1, 1, sizes[given]))
        rule = Requantize(np.full(outputs, 1), np.full(outputs, 2), 2, low, high)
        return Conv(made, given, made, weights, 3, False, (1, 1), (0, 0, 0, 0), rule, 16)

    layers = dense("x", "h", 0, 15), dense("h", "y", -8, 7)
    host = Host((INPUTS,), np.arange(INPUTS), 7.0, 0.0, (CLASSES,), np.arange(CLASSES), False)
    return IntegerGraph(tensors, "x", "y", layers, host)


def silent(_: str) -> None:
    """Whom nobody hears."""


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _folder, _cache = Path(sys.argv[1]), Cache(Path(sys.argv[2])).lasting
    built.build(net_of_two_layers(), SETTINGS, _folder, CODES, _say, keeper=_cache)
