"""Write the layers of an integer graph: weights as codes, real factors as multiplier and shift."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from converters.fpga.integer.graph import (
    ACCUMULATOR_BITS,
    BIAS_BITS,
    LARGEST_SHIFT,
    MULTIPLIER_BITS,
    Add,
    ArgMax,
    Concat,
    Conv,
    Layer,
    MaxPool,
    Pair,
    Requantize,
    SumPool,
    Table,
    Tensor,
    accumulator_bounds,
    signed_bits,
)
from converters.fpga.integer.network import (
    Format,
    Function,
    Join,
    Largest,
    Linear,
    Network,
    Node,
    Pool,
    Sum,
)
from converters.methods.refusal import NotQuantizableError

_STEPS = np.linspace(0.4, 1.0, 31)  # shares of the largest weight that codes may end at
_LARGEST_TAP = 127
_CLASS = Format(1.0, 8, False, 0, 255)
_PENDING = Requantize(np.zeros(0), np.zeros(0), 0, 0, 0)  # until the layer's sums are bounded


class Emitter:
    """Layers and tensors, one node after the other.

    `current` says under which name a tensor of the network is found in its own format.
    """

    def __init__(
        self, network: Network, formats: Mapping[str, Format], powers_of_two: bool
    ) -> None:
        self.layers: list[Layer] = []
        self.tensors: dict[str, Tensor] = {}
        self.current: dict[str, str] = {}
        self._network = network
        self._formats = dict(formats)
        self._powers_of_two = powers_of_two
        entered, kept = self._tensor(network.input), formats[network.input]
        if (entered.low, entered.high) != (kept.low, kept.high):  # the host knows whole ranges
            self._rescale(network.input, kept, f"{network.input}/clipped")

    def emit(self, node: Node, means: Sequence[np.ndarray], bits: int) -> None:
        """The layers that compute a node; `means` are of its inputs, by channel."""
        match node:
            case Linear():
                self._linear(node, means[0], bits)
            case Pool() if node.is_average:
                self._average(node)
            case Pool():
                self._largest_of_windows(node)
            case Sum():
                self._sum(node)
            case Join():
                self._join(node)
            case Function():
                self._function(node)
            case Largest():
                self._formats[node.output] = _CLASS
                self._tensor(node.output)
                self.layers.append(ArgMax(node.name, self._at(node.inputs[0]), node.output))

    def _at(self, name: str) -> str:
        return self.current[name]

    def _tensor(self, name: str, like: str = "", called: str = "") -> Tensor:
        """Note a tensor of the graph for one of the network."""
        kept = self._formats[name]
        shape = self._network.shapes[like or name]
        tensor = Tensor(called or name, shape, kept.bits, kept.signed, kept.scale)
        self.tensors[tensor.name] = tensor
        self.current.setdefault(name, tensor.name)
        return tensor

    def _linear(self, node: Linear, mean: np.ndarray, bits: int) -> None:
        entered, left = self._formats[node.inputs[0]], self._formats[node.output]
        factor = entered.scale * np.abs(node.gain) / left.scale
        if node.step is not None:
            step = np.where(node.step > 0, node.step, 1.0)
            codes = np.round(node.weights / step[:, None, None, None])
            bits = max(2, signed_bits(-int(np.abs(codes).max()), int(np.abs(codes).max())))
        else:
            codes, step = coded(node.weights, bits, factor if self._powers_of_two else None)
        bias = node.bias - node.gain * _mean_error(node, codes, step, mean)
        signs = np.where(node.gain < 0, -1, 1)
        layer = Conv(
            name=node.name,
            input=self._at(node.inputs[0]),
            output=self._tensor(node.output).name,
            weights=(codes * signs[:, None, None, None]).astype(np.int64),
            weight_bits=bits,
            depthwise=node.depthwise,
            strides=node.strides,
            pads=node.pads,
            requantize=_PENDING,
            accumulator_bits=0,
        )
        self._close(layer, factor * step, bias, node, left)

    def _average(self, node: Pool) -> None:
        entered, left = self._formats[node.inputs[0]], self._formats[node.output]
        layer = SumPool(
            name=node.name,
            input=self._at(node.inputs[0]),
            output=self._tensor(node.output).name,
            kernel=node.kernel,
            strides=node.strides,
            pads=node.pads,
            requantize=_PENDING,
            accumulator_bits=0,
        )
        channels = self._network.shapes[node.output][2]
        factor = np.full(channels, entered.scale / left.scale / prod(node.kernel))
        self._close(layer, factor, np.zeros(channels), node, left)

    def _close(
        self,
        layer: Conv | SumPool,
        factor: np.ndarray,
        bias: np.ndarray,
        node: Linear | Pool,
        left: Format,
    ) -> None:
        """Add a layer whose sums become codes by a factor and a real bias."""
        width = signed_bits(*accumulator_bounds(layer, self.tensors[layer.input]))
        rule = requantize(node.name, factor, bias / left.scale, _levels(node, left))
        bits = _checked(node.name, width)
        self.layers.append(replace(layer, requantize=rule, accumulator_bits=bits))

    def _largest_of_windows(self, node: Pool) -> None:
        source, wanted = self._formats[node.inputs[0]], self._formats[node.output]
        self._formats[node.output] = source
        called = node.output if source == wanted else f"{node.output}/largest"
        self._tensor(node.output, called=called)
        self.layers.append(
            MaxPool(
                node.name,
                self._at(node.inputs[0]),
                called,
                node.kernel,
                node.strides,
                node.pads,
            )
        )
        if source != wanted:
            self._formats[node.output] = wanted
            self._rescale(node.output, source, node.output)

    def _rescale(self, name: str, source: Format, called: str) -> str:
        """The tensor, kept in another format, brought into that which the network gives it."""
        kept = self._formats[name]
        channels = self._network.shapes[name][2]
        given = self._at(name)
        del self.current[name]
        made = self._tensor(name, called=called)
        layer = Conv(
            name=f"{called}/rescale",
            input=given,
            output=made.name,
            weights=np.ones((channels, 1, 1, 1), np.int64),
            weight_bits=2,
            depthwise=True,
            strides=(1, 1),
            pads=(0, 0, 0, 0),
            requantize=requantize(
                called,
                np.full(channels, source.scale / kept.scale),
                np.zeros(channels),
                (kept.low, kept.high),
            ),
            accumulator_bits=signed_bits(source.low, source.high),
        )
        self.layers.append(layer)
        return made.name

    def _sum(self, node: Sum) -> None:
        left = self._formats[node.output]
        first, second = (self._formats[name] for name in node.inputs)
        taps = nearest_taps(first.scale / second.scale)
        channels = self._network.shapes[node.output][2]
        unit = (first.scale + second.scale) / (taps[0] + taps[1])
        bounds = [
            tuple(
                tap * end
                for end in (self.tensors[self._at(name)].low, self.tensors[self._at(name)].high)
            )
            for tap, name in zip(taps, node.inputs, strict=True)
        ]
        self.layers.append(
            Add(
                name=node.name,
                inputs=tuple(self._at(name) for name in node.inputs),
                output=self._tensor(node.output).name,
                multipliers=taps,
                requantize=requantize(
                    node.name,
                    np.full(channels, unit / left.scale),
                    np.zeros(channels),
                    _levels(node, left),
                ),
                accumulator_bits=signed_bits(
                    min(0, *(low for low, _ in bounds), sum(low for low, _ in bounds)),
                    sum(high for _, high in bounds),
                ),
            )
        )

    def _join(self, node: Join) -> None:
        wanted = self._formats[node.output]
        names = []
        for index, name in enumerate(node.inputs):
            kept = self._formats[name]
            if (kept.scale, kept.bits, kept.signed) == (wanted.scale, wanted.bits, wanted.signed):
                names.append(self._at(name))
                continue
            before, self._formats[name] = self._at(name), wanted
            names.append(self._rescale(name, kept, f"{node.output}/{index}"))
            self._formats[name], self.current[name] = kept, before
        self.layers.append(Concat(node.name, tuple(names), self._tensor(node.output).name))

    def _function(self, node: Function) -> None:
        entered, left = self.tensors[self._at(node.inputs[0])], self._formats[node.output]
        real = np.arange(entered.low, entered.high + 1) * entered.scale
        codes = np.floor(node.function(real) / left.scale + 0.5)
        values = np.clip(codes, left.low, left.high).astype(np.int64)
        self.layers.append(Table(node.name, entered.name, self._tensor(node.output).name, values))


def coded(
    weights: np.ndarray, bits: int, factor: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights as codes, and the step of each output, with the least squared error.

    Args:
        weights: [outputs, ...].
        bits: of a code, whose range is symmetric.
        factor: where given, steps are chosen so that `step * factor` is a power of two.
    """
    flat = weights.reshape(len(weights), -1)
    high = (1 << (bits - 1)) - 1
    largest = np.abs(flat).max(axis=1) / high
    largest = np.where(largest > 0, largest, 1.0)
    if factor is None:
        steps = largest[None] * _STEPS[:, None]
    else:
        power = 2.0 ** np.ceil(np.log2(largest * factor))
        steps = np.stack([power, power / 2]) / factor
    errors = np.stack(
        [
            np.square(np.clip(np.round(flat / s[:, None]), -high, high) * s[:, None] - flat).sum(
                axis=1
            )
            for s in steps
        ]
    )
    step = steps[errors.argmin(axis=0), np.arange(len(flat))]
    codes = np.clip(np.round(flat / step[:, None]), -high, high)
    return codes.reshape(weights.shape), step


def requantize(
    name: str, factor: np.ndarray, bias: np.ndarray, levels: tuple[int, int]
) -> Requantize:
    """Real factors and biases, in output codes, as integers with the largest shift that fits.

    Raises:
        NotQuantizableError: they do not fit; a tensor's scale is far from its layer's.
    """
    largest_multiplier, largest_bias = (1 << MULTIPLIER_BITS) - 1, (1 << (BIAS_BITS - 1)) - 1
    for shift in range(LARGEST_SHIFT, -1, -1):
        multiplier = np.round(factor * 2.0**shift)
        added = np.floor((bias + 0.5) * 2.0**shift + 0.5)
        if multiplier.max() <= largest_multiplier and np.abs(added).max() <= largest_bias:
            return Requantize(multiplier.astype(np.int64), added.astype(np.int64), shift, *levels)
    raise NotQuantizableError(
        f"The layer {name} does not fit gateware's integers.",
        why=f"Its sums are multiplied by up to {factor.max():.3g}, its biases are up to "
        f"{np.abs(bias).max():.3g} steps of its output.",
        fix="Look whether its output is ever used: its calibrated range is very narrow.",
    )


def nearest_taps(ratio: float) -> Pair:
    """Two taps, 1 to 127, whose ratio is nearest to a real one.

    >>> nearest_taps(1.0), nearest_taps(0.25), nearest_taps(1.5)
    ((1, 1), (1, 4), (3, 2))
    """
    if ratio > 1:
        second, first = nearest_taps(1 / ratio)
        return first, second
    tried = [(max(1, round(tap * ratio)), tap) for tap in range(1, _LARGEST_TAP + 1)]
    return min(tried, key=lambda taps: abs(taps[0] / taps[1] - ratio))


def _levels(node: Linear | Pool | Sum, left: Format) -> tuple[int, int]:
    """The least and the largest code that a node's own clipping and its format leave."""
    low, high = (np.clip(end / left.scale, left.low, left.high) for end in (node.low, node.high))
    return int(np.floor(low + 0.5)), int(np.floor(high + 0.5))


def _mean_error(node: Linear, codes: np.ndarray, step: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """By how much rounded weights shift each output on average; nothing where they are given."""
    if node.step is not None:
        return np.zeros(len(codes))
    error = (codes * step[:, None, None, None] - node.weights).sum(axis=(1, 2))
    return np.asarray(error[:, 0] * mean if node.depthwise else error @ mean)


def _checked(name: str, width: int) -> int:
    if width > ACCUMULATOR_BITS:
        raise NotQuantizableError(
            f"A sum of {name} needs {width} bits, gateware adds in {ACCUMULATOR_BITS}.",
            fix="Split the layer, or use fewer bits.",
        )
    return width
