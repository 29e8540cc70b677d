"""A float network in the form that becomes integers: few kinds of nodes, channel last.

`reading` makes it of an ONNX model, `quantize` an integer graph of it. Here is what it is, and
what it computes: `evaluate` gives every tensor's float values, from which ranges are taken.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from converters.fpga.integer.graph import BITS, Pads, Pair, Shape, signed_bits
from converters.fpga.integer.reference import windows


@dataclass(frozen=True)
class Format:
    """How a quantized model stores a tensor: fixed by it, not to be chosen."""

    scale: float
    bits: int
    signed: bool
    low: int
    high: int

    def within(self, low: float, high: float) -> "Format":
        """With the codes from low to high alone, in as few bits as hold them.

        >>> Format(0.5, 8, signed=True, low=-128, high=127).within(-7, 7)
        Format(scale=0.5, bits=4, signed=True, low=-7, high=7)
        """
        first, last = int(max(self.low, low)), int(min(self.high, high))
        if first > min(0, last):
            raise ValueError("it leaves codes out between zero and others")
        bits = max(BITS[0], signed_bits(first, last) - (not self.signed))
        return Format(self.scale, bits, self.signed, first, last)


@dataclass(eq=False)
class Linear:
    """`clip((input * weights) * gain + bias, low, high)`; weights [outputs, height, width, inputs].

    Where the model came quantized, `step` holds the scale of each output's weights, of which
    they are multiples.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    weights: np.ndarray
    gain: np.ndarray
    bias: np.ndarray
    depthwise: bool = False
    step: np.ndarray | None = None
    strides: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    low: float = -np.inf
    high: float = np.inf

    @property
    def kernel(self) -> Pair:
        """Height and width."""
        return self.weights.shape[1], self.weights.shape[2]


@dataclass(eq=False)
class Pool:
    """The maximum or, with zeros for padding, the average of each window, clipped."""

    name: str
    inputs: tuple[str, ...]
    output: str
    is_average: bool
    kernel: Pair
    strides: Pair
    pads: Pads
    low: float = -np.inf
    high: float = np.inf


@dataclass(eq=False)
class Sum:
    """Two tensors of one shape, added and clipped."""

    name: str
    inputs: tuple[str, ...]
    output: str
    low: float = -np.inf
    high: float = np.inf


@dataclass(eq=False)
class Join:
    """Tensors side by side in their channels."""

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(eq=False)
class Function:
    """A function of each value for itself."""

    name: str
    inputs: tuple[str, ...]
    output: str
    function: Callable[[np.ndarray], np.ndarray]


@dataclass(eq=False)
class Largest:
    """The channel of the largest value of a vector."""

    name: str
    inputs: tuple[str, ...]
    output: str


Node = Linear | Pool | Sum | Join | Function | Largest


@dataclass(eq=False)
class Network:
    """Nodes in their order, tensors by name.

    The input is `x * gain + offset` of the model's input x, in the order that `input_order`
    gives; the model's output is `output` in `output_order`, and its softmax where so.
    """

    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    formats: dict[str, Format] = field(default_factory=dict)
    input: str = ""
    output: str = ""
    input_shape: tuple[int, ...] = ()
    input_order: np.ndarray = field(default_factory=lambda: np.arange(0))
    gain: float = 1.0
    offset: float = 0.0
    output_shape: tuple[int, ...] = ()
    output_order: np.ndarray = field(default_factory=lambda: np.arange(0))
    softmax: bool = False

    @property
    def linears(self) -> list[Linear]:
        """The nodes that hold weights, in their order."""
        return [node for node in self.nodes if isinstance(node, Linear)]


def evaluate(network: Network, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor in float32, [samples, height, width, channels], of model inputs.

    Those that the model stores in a format of its own are rounded to it.
    """
    flat = samples.reshape(len(samples), -1)[:, network.input_order].astype(np.float32)
    entered = flat * np.float32(network.gain) + np.float32(network.offset)
    entered = entered.reshape(-1, *network.shapes[network.input])
    values = {network.input: _stored(entered, network.formats.get(network.input))}
    for node in network.nodes:
        made = _computed(node, [values[name] for name in node.inputs])
        values[node.output] = _stored(made, network.formats.get(node.output))
    return values


def _stored(values: np.ndarray, kept: Format | None) -> np.ndarray:
    if kept is None:
        return values
    codes = np.clip(np.floor(values / kept.scale + 0.5), kept.low, kept.high)
    return np.asarray(codes * kept.scale, np.float32)


def outputs(network: Network, values: dict[str, np.ndarray]) -> np.ndarray:
    """The model's output of what `evaluate` gave."""
    given = values[network.output]
    real = given.reshape(len(given), -1)[:, network.output_order]
    real = real.reshape(-1, *network.output_shape)
    if network.softmax:
        powers = np.exp(real - real.max(axis=-1, keepdims=True))
        real = powers / powers.sum(axis=-1, keepdims=True)
    return real


def _computed(node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    given = inputs[0]
    match node:
        case Linear():
            sums = products(node, given, node.weights)
            made = np.clip(sums * node.gain + node.bias, node.low, node.high)
        case Pool():
            fill = 0.0 if node.is_average else -np.inf
            seen = windows(given, node.kernel, node.strides, node.pads, fill=fill)
            made = seen.mean(axis=(-2, -1)) if node.is_average else seen.max(axis=(-2, -1))
            made = np.clip(made, node.low, node.high)
        case Sum():
            made = np.clip(given + inputs[1], node.low, node.high)
        case Join():
            made = np.concatenate(inputs, axis=-1)
        case Function():
            made = node.function(given)
        case Largest():
            made = given.argmax(axis=-1, keepdims=True)
    return np.asarray(made, np.float32)


def products(node: Linear, given: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The convolution alone, without gain and bias, in the type of what is given."""
    seen = windows(given, node.kernel, node.strides, node.pads, fill=0)
    weights = weights.astype(given.dtype)
    if node.depthwise:
        return np.asarray(np.einsum("nyxcij,cij->nyxc", seen, weights[..., 0]))
    columns = weights.transpose(3, 1, 2, 0).reshape(-1, len(weights))
    return np.asarray(seen.reshape(*seen.shape[:3], -1) @ columns)
