"""A network under construction: tensors, their order, and what is fused into the layer before."""

from typing import Any

import numpy as np

from converters.fpga.integer.graph import BITS, Shape
from converters.fpga.integer.network import Format, Linear, Network, Pool, Sum
from converters.fpga.integer.values import View, channels_first

_Node = Any


class Builder:
    """The network as it grows; `made` are the nodes that a clip or an affine may be fused into."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.network = Network()
        self.made: dict[str, Linear | Pool | Sum] = {}
        self._input_places: np.ndarray | None = None  # of each model input, once it is known

    def enter(self, name: str, shape: tuple[int, ...]) -> View:
        """Begin with the model's input, whose order is settled by whoever reads it first."""
        size = int(np.prod(shape))
        network = self.network
        network.input, network.input_shape = name, shape
        network.shapes[name] = (1, 1, size)
        network.input_order = np.arange(size)
        return View(name, np.arange(size).reshape(1, *shape), shared=False)

    def picture(self, view: View) -> tuple[str, Shape]:
        """The tensor, seen as (1, channels, height, width), in its own order."""
        if view.places.ndim != 4:  # noqa: PLR2004
            raise ValueError(f"its operand has {view.places.ndim - 1} axes, supported are 3")
        _, channels, height, width = view.places.shape
        shape = (height, width, channels)
        if view.tensor == self.network.input and self._input_places is None:
            order = view.places.transpose(0, 2, 3, 1).ravel()
            self.network.input_order = order
            self.network.shapes[view.tensor] = shape
            self._input_places = np.argsort(order)
        places = self.places(view)
        if self.network.shapes[view.tensor] != shape or not np.array_equal(
            places, channels_first(shape)
        ):
            raise ValueError("values were moved between channels and places before it")
        return view.tensor, shape

    def places(self, view: View) -> np.ndarray:
        """Where a view's values lie; the input's order is settled by whoever asks first."""
        if view.tensor != self.network.input:
            return view.places
        if self._input_places is None:
            self._input_places = np.arange(view.places.size)
        places = self._input_places[view.places]
        return np.asarray(places)

    def added(self, node: Linear | Pool | Sum, shape: Shape) -> View:
        """Append a node; its output as ONNX sees a picture."""
        if min(shape) < 1:
            raise ValueError("its window is larger than its input")
        self.network.nodes.append(node)
        self.network.shapes[node.output] = shape
        self.made[node.output] = node
        return View(node.output, channels_first(shape), False)

    def name_of(self, node: _Node) -> str:
        """A node's name, or one that tells it from others."""
        return str(node.name or f"{node.op_type}_{len(self.network.nodes)}")

    def affine(self, node: _Node, view: View, gain: np.ndarray, bias: np.ndarray) -> View:
        """Multiply and add constants: in the layer before, or in the host's scaling, or alone."""
        network = self.network
        maker = self.made.get(view.tensor)
        plain = not view.shared and view.tensor not in network.formats
        if view.tensor == network.input and plain and gain.size == bias.size == 1:
            network.gain *= gain.item()
            network.offset = network.offset * gain.item() + bias.item()
            return view
        if not isinstance(maker, Linear) or not plain or clips(maker):
            view = self.rescaled(node, view)
            maker = self.made[view.tensor]
        assert isinstance(maker, Linear)
        factor = self._by_channel(view, gain)
        maker.gain = maker.gain * factor
        maker.bias = maker.bias * factor + self._by_channel(view, bias)
        return view

    def _by_channel(self, view: View, constant: np.ndarray) -> np.ndarray:
        """A constant that is spread over a tensor, by the tensor's channels."""
        shape = self.network.shapes[view.tensor]
        if np.broadcast_shapes(constant.shape, view.places.shape) != view.places.shape:
            raise ValueError("its constant is larger than the tensor")
        spread = np.broadcast_to(constant, view.places.shape)
        flat = np.empty(int(np.prod(shape)))
        flat[view.places.ravel()] = spread.ravel()
        by_place = flat.reshape(-1, shape[2])
        if not (by_place == by_place[0]).all():
            raise ValueError("its constant differs from place to place, not only by channel")
        return np.array(by_place[0])

    def rescaled(self, node: _Node, view: View) -> View:
        """A layer of its own that multiplies each channel by one."""
        if view.tensor == self.network.input and view.places.ndim == 4:  # noqa: PLR2004
            self.picture(view)
        places, shape = self.places(view), self.network.shapes[view.tensor]
        linear = Linear(
            name=self.name_of(node),
            inputs=(view.tensor,),
            output=node.output[0],
            weights=np.ones((shape[2], 1, 1, 1)),
            gain=np.ones(shape[2]),
            bias=np.zeros(shape[2]),
            depthwise=True,
        )
        return View(self.added(linear, shape).tensor, places, False)

    def stored(self, node: _Node, view: View, kept: Format) -> View:
        """Note that the model stores a tensor in a format of its own."""
        if kept.bits not in BITS:
            raise ValueError(f"it has {kept.bits} bits, supported are {BITS[0]} to {BITS[-1]}")
        formats = self.network.formats
        if formats.get(view.tensor) == kept:
            return view
        if view.tensor in formats or (view.shared and view.tensor in self.made):
            view = self.rescaled(node, view)
        formats[view.tensor] = kept
        return view


def clips(node: Linear) -> bool:
    """Whether a node's values are bounded."""
    return node.low > -np.inf or node.high < np.inf
