"""The integer graph: everything that gateware has to know of a model, and nothing else.

Tensors are codes of shape (height, width, channels), channel last, of one sample; a code times
its tensor's scale is the real value, and zero points are always 0. A fully connected layer is a
`Conv` whose kernel is its whole input; biases, batch norms, ReLU and flattening are no layers.

Wherever a sum becomes a code the rule is `Requantize`: multiply by an integer, add an integer,
shift right arithmetically, saturate. The half that rounds is part of what is added, so that
values between two codes go to the nearer one and ties go up.

    >>> rule = Requantize(multiplier=np.array([3]), bias=np.array([2]), shift=2, low=-8, high=7)
    >>> rule(np.array([[1], [2], [-2], [100]])).ravel().tolist()  # 0.75, 1.5, -1.5, 75
    [1, 2, -1, 7]
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

BITS = range(2, 9)  # of a weight or a code
MULTIPLIER_BITS = 15  # unsigned
BIAS_BITS = 40  # signed
ACCUMULATOR_BITS = 32  # signed
LARGEST_SHIFT = 31
CLASSES = 256  # that an ArgMax tells apart

Shape = tuple[int, int, int]
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


@dataclass(frozen=True)
class Tensor:
    """Codes of `bits`, two's complement where `signed`."""

    name: str
    shape: Shape
    bits: int
    signed: bool
    scale: float

    @property
    def low(self) -> int:
        """The least code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest code."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def size(self) -> int:
        """How many codes it has."""
        return prod(self.shape)


@dataclass(frozen=True, eq=False)
class Requantize:
    """From a sum to a code, by channel: `clamp((sum * multiplier + bias) >> shift, low, high)`."""

    multiplier: np.ndarray
    bias: np.ndarray
    shift: int
    low: int
    high: int

    def __call__(self, sums: np.ndarray) -> np.ndarray:
        """Codes of int64 sums; channels are the last axis."""
        shifted = (sums * self.multiplier + self.bias) >> self.shift
        codes: np.ndarray = np.clip(shifted, self.low, self.high)
        return codes


class _OfOne:
    """A layer that reads one tensor."""

    input: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        return (self.input,)


@dataclass(frozen=True, eq=False)
class Conv(_OfOne):
    """A convolution, int64[outputs, kernel height, kernel width, inputs]; padding is code 0.

    A depthwise one has one weight a place and channel (`inputs` is 1). `accumulator_bits` are
    proven to hold every partial sum, in whatever order products are added.
    """

    name: str
    input: str
    output: str
    weights: np.ndarray
    weight_bits: int
    depthwise: bool
    strides: Pair
    pads: Pads
    requantize: Requantize
    accumulator_bits: int

    @property
    def kernel(self) -> Pair:
        """Height and width."""
        return self.weights.shape[1], self.weights.shape[2]


@dataclass(frozen=True)
class MaxPool(_OfOne):
    """The largest code of each window; padded places do not take part."""

    name: str
    input: str
    output: str
    kernel: Pair
    strides: Pair
    pads: Pads


@dataclass(frozen=True, eq=False)
class SumPool(_OfOne):
    """An average pool: the sum of each window, padding being 0, requantized."""

    name: str
    input: str
    output: str
    kernel: Pair
    strides: Pair
    pads: Pads
    requantize: Requantize
    accumulator_bits: int


@dataclass(frozen=True, eq=False)
class Add:
    """Two tensors of one shape, `requantize(first * multipliers[0] + second * multipliers[1])`.

    Multipliers are 1 to 127, so that hardware adds with the taps of its convolutions.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    multipliers: Pair
    requantize: Requantize
    accumulator_bits: int


@dataclass(frozen=True)
class Concat:
    """Tensors of one scale, width and sign side by side in their channels: a copy."""

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, eq=False)
class Table(_OfOne):
    """A function of one code: `values[code - input's low]`."""

    name: str
    input: str
    output: str
    values: np.ndarray


@dataclass(frozen=True)
class ArgMax(_OfOne):
    """The channel of the largest code of a vector, the first of several."""

    name: str
    input: str
    output: str


Layer = Conv | MaxPool | SumPool | Add | Concat | Table | ArgMax
LAYERS: dict[str, Callable[..., Layer]] = {
    kind.__name__: kind for kind in (Conv, MaxPool, SumPool, Add, Concat, Table, ArgMax)
}


@dataclass(frozen=True, eq=False)
class Host:
    """What is computed around the gateware, in float64.

    `code = clamp(floor(x * gain + offset + 0.5))`; `codes.flat = x.flat[input_order]` and
    `outputs.flat = codes.flat[output_order] * scale`, then a softmax over the last axis where
    the model ends in one. Shapes are those of the ONNX model, without the batch axis.
    """

    input_shape: tuple[int, ...]
    input_order: np.ndarray
    gain: float
    offset: float
    output_shape: tuple[int, ...]
    output_order: np.ndarray
    softmax: bool


@dataclass(frozen=True, eq=False)
class IntegerGraph:
    """Layers in the order in which they can be executed, and the tensors that they name."""

    tensors: dict[str, Tensor]
    input: str
    output: str
    layers: tuple[Layer, ...]
    host: Host

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256(encode(self)).hexdigest()

    @property
    def macs(self) -> int:
        """Multiplications and additions of an inference."""
        return sum(
            prod(self.tensors[layer.output].shape[:2]) * layer.weights.size
            for layer in self.layers
            if isinstance(layer, Conv)
        )

    @property
    def weight_bits(self) -> int:
        """The memory that all weights take, in bits."""
        return sum(x.weights.size * x.weight_bits for x in self.layers if isinstance(x, Conv))


def signed_bits(low: int, high: int) -> int:
    """The two's complement width that holds all integers from low to high.

    >>> signed_bits(-128, 127), signed_bits(-129, 127), signed_bits(0, 128)
    (8, 9, 9)
    """
    return max((-low - 1).bit_length() if low < 0 else 0, max(high, 0).bit_length()) + 1


def accumulator_bounds(layer: Conv | SumPool, tensor: Tensor) -> tuple[int, int]:
    """The least and the largest partial sum that any input of these codes can give."""
    if isinstance(layer, SumPool):
        places = prod(layer.kernel)
        return min(tensor.low, 0) * places, tensor.high * places
    flat = layer.weights.reshape(len(layer.weights), -1)
    positive, negative = np.maximum(flat, 0).sum(axis=1), np.minimum(flat, 0).sum(axis=1)
    low = (positive * tensor.low + negative * tensor.high).min()
    return int(low), int((positive * tensor.high + negative * tensor.low).max())


def encode(graph: IntegerGraph) -> bytes:
    """The graph as JSON, the same bytes for the same graph."""
    return json.dumps(_plain(graph), sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes) -> IntegerGraph:
    """The graph that `encode` wrote."""
    tree = json.loads(data)
    return IntegerGraph(
        tensors={name: Tensor(**_tupled(tensor)) for name, tensor in tree["tensors"].items()},
        input=tree["input"],
        output=tree["output"],
        layers=tuple(_layer(layer) for layer in tree["layers"]),
        host=Host(**_tupled(tree["host"])),
    )


def _layer(tree: dict[str, Any]) -> Layer:
    given = _tupled({name: value for name, value in tree.items() if name != "kind"})
    if "requantize" in given:
        given["requantize"] = Requantize(**_tupled(given["requantize"]))
    return LAYERS[tree["kind"]](**given)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"int64": value.astype(np.int64).ravel().tolist(), "shape": list(value.shape)}
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if not is_dataclass(value):
        return value.item() if isinstance(value, np.generic) else value
    tree = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return tree | {"kind": type(value).__name__} if type(value).__name__ in LAYERS else tree


def _tupled(tree: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as tuples, and what were arrays as arrays."""

    def made(value: Any) -> Any:
        if isinstance(value, dict) and "int64" in value:
            return np.array(value["int64"], np.int64).reshape(value["shape"])
        return tuple(made(part) for part in value) if isinstance(value, list) else value

    return {name: made(value) for name, value in tree.items()}
