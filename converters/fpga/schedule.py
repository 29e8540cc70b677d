"""From an integer graph to the engine's layers: layout, addresses, one descriptor each.

Tensors lie channel last in words of `lanes` bytes, and a place in the activation memory is used
again as soon as the last layer that reads it is done. Input and output may lie there twice, so that
a host has the one bank while the engine works on the other; both stay what they are through all
layers. Every layer of the graph is one loop nest
of the engine, a Concat one for each of its inputs: what differs are the steps of the addresses,
whether a lane takes its own activation, and what the lanes do with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from converters.fpga.integer.graph import (
    Add,
    ArgMax,
    Concat,
    Conv,
    IntegerGraph,
    Layer,
    MaxPool,
    Pads,
    Pair,
    Requantize,
    SumPool,
    Table,
    Tensor,
)
from edgeml.errors import TargetError
from hardware.fpga.program import Placed

LOWEST, HIGHEST = -512, 511  # what the engine's clamp can be set to
NO_PADS: Pads = (0, 0, 0, 0)
EVERYWHERE = 0xFFFF  # height and width of a picture that nothing lies outside of
PLACES = 1 << 16  # that 16 bits count
BANKS = 2  # of input and output, where the memory has room
_ALWAYS = 1 << 30  # later than every layer


@dataclass(frozen=True, eq=False)
class Step:
    """One loop nest of the engine, in its words; addresses in words of `lanes` bytes.

    `weights` is int8[groups, taps, lanes], one group where they are `shared`; `multiplier` and
    `bias` are by lane of each group. `table` has 256 bytes where codes go through one.
    """

    name: str
    kind: str
    source: Placed
    second: Placed | None
    target: Placed
    group: int
    groups: int
    rows: int
    pixels: int
    kernel: Pair
    channels: int
    strides: Pair
    pads: Pads
    lanewise: bool
    largest: bool
    shared: bool
    weights: np.ndarray
    multiplier: np.ndarray
    bias: np.ndarray
    shift: int
    low: int
    high: int
    table: np.ndarray | None = None

    @property
    def taps(self) -> int:
        """Clocks that a group takes, if nothing waits."""
        return self.kernel[0] * self.kernel[1] * self.channels


@dataclass(frozen=True, eq=False)
class Schedule:
    """What the engine does, in order; `output` is none where an ArgMax ends it.

    Of two `banks`, input and output are those of the first; the second lies right behind.
    """

    lanes: int
    steps: tuple[Step, ...]
    activation_words: int
    input: Placed
    output: Placed | None
    banks: int


def schedule(graph: IntegerGraph, lanes: int, *, banks: int = BANKS) -> Schedule:
    """Lay out a graph for an engine of so many lanes, its input and output in 1 or 2 banks.

    Raises:
        TargetError: a layer is larger than the engine counts, or nothing comes of an ArgMax.
    """
    layout = _Layout(graph, lanes, banks)
    steps = [step for layer in graph.layers for step in _steps(graph, layer, layout)]
    return Schedule(
        lanes=lanes,
        steps=tuple(steps),
        activation_words=layout.words,
        input=layout.placed[graph.input],
        output=layout.placed.get(graph.output),
        banks=banks,
    )


@dataclass
class _Layout:
    """Where every tensor lies, first fit among those that are alive."""

    graph: IntegerGraph
    lanes: int
    banks: int
    placed: dict[str, Placed] = field(default_factory=dict)
    words: int = 0

    def __post_init__(self) -> None:
        graph = self.graph
        channels = {graph.input: self._of_input()}
        ends = {graph.output: len(graph.layers)}
        made = {graph.input: -1}
        for i, layer in enumerate(graph.layers):
            ends |= {name: max(i, ends.get(name, i)) for name in layer.inputs}
            if isinstance(layer, ArgMax):
                self._require_last(layer)
            else:
                channels[layer.output] = self._channels(layer, channels)
                made[layer.output] = i
        alive: list[tuple[int, int, int]] = []  # last use, address, words
        if self.banks > 1:
            for name in (graph.input, graph.output):
                if name in made:
                    self._place(name, channels[name], alive, (made.pop(name), _ALWAYS))
        for name, now in made.items():
            self._place(name, channels[name], alive, (now, ends.get(name, now)))

    def _require_last(self, layer: ArgMax) -> None:
        if layer.output != self.graph.output:
            raise TargetError(
                f"The engine cannot run {layer.name}.",
                why="An ArgMax leaves its index in a register; it must come last.",
                fix="Cut the model after the ArgMax.",
            )

    def _of_input(self) -> tuple[int, ...]:
        """Without a gap where every byte is addressed alone, so that a host has less to write."""
        readers = [layer for layer in self.graph.layers if self.graph.input in layer.inputs]
        if all(isinstance(layer, Conv) and not layer.depthwise for layer in readers):
            return tuple(range(self.graph.tensors[self.graph.input].shape[2]))
        return self._packed(self.graph.input)

    def _packed(self, name: str) -> tuple[int, ...]:
        channels = self.graph.tensors[name].shape[2]
        return tuple(range(channels)) + (-1,) * (-channels % self.lanes)

    def _channels(self, layer: Layer, known: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Which byte of a pixel holds which channel of a layer's output."""
        if isinstance(layer, Concat):
            found: list[int] = []
            first = 0
            for name in layer.inputs:
                found += [first + channel if channel >= 0 else -1 for channel in known[name]]
                first += self.graph.tensors[name].shape[2]
            return tuple(found)
        if isinstance(layer, Conv) and not layer.depthwise:
            return self._packed(layer.output)
        own = known[layer.inputs[0]]
        if any(known[name] != own for name in layer.inputs):
            raise TargetError(
                f"The engine cannot run {layer.name}.",
                why="It adds the output of a Concat, whose parts do not fill whole words, to "
                "a tensor that has its channels elsewhere.",
                fix=f"Give the Concat's inputs a multiple of {self.lanes} channels.",
            )
        return own

    def _place(
        self,
        name: str,
        channels: tuple[int, ...],
        alive: list[tuple[int, int, int]],
        life: tuple[int, int],
    ) -> None:
        tensor = self.graph.tensors[name]
        now, last = life
        banks = self.banks if last == _ALWAYS else 1
        # A layer reads its inputs until its last word is written.
        alive[:] = [item for item in alive if item[0] >= now]
        self.placed[name] = Placed(
            address=0,
            height=tensor.shape[0],
            width=tensor.shape[1],
            channels=channels,
            signed=tensor.signed,
        )
        words = banks * self.placed[name].words(self.lanes)
        address = 0
        for _, start, size in sorted(alive, key=lambda item: item[1]):
            if address + words <= start:
                break
            address = max(address, start + size)
        alive.append((last, address, words))
        self.words = max(self.words, address + words)
        self.placed[name] = replace(self.placed[name], address=address)


def _steps(graph: IntegerGraph, layer: Layer, layout: _Layout) -> Iterator[Step]:
    match layer:
        case Conv(depthwise=False):
            yield _dense(layer, layout)
        case Conv():
            of = layout.placed[layer.input]
            weights = _by_lane(layer.weights[..., 0].transpose(1, 2, 0), of, layout.lanes)
            yield _lanewise(layer, layout, weights, layer.requantize)
        case SumPool():
            yield _lanewise(layer, layout, _ones(layer.kernel, layout), layer.requantize)
        case MaxPool():
            copied = _copy(graph.tensors[layer.output])
            yield _lanewise(layer, layout, _ones(layer.kernel, layout), copied)
        case Add():
            weights = np.repeat(np.array(layer.multipliers, np.int8), layout.lanes)
            weights = weights.reshape(1, 2, layout.lanes)
            second = layout.placed[layer.inputs[1]]
            yield _lanewise(layer, layout, weights, layer.requantize, second=second)
        case Concat():
            yield from _copies(graph, layer, layout)
        case Table():
            yield _looked_up(graph, layer, layout)
        case ArgMax():
            _require_gapless(layer, layout)
            yield _lanewise(layer, layout, _ones((1, 1), layout), _copy(None))


def _ones(kernel: Pair, layout: _Layout) -> np.ndarray:
    return np.ones((1, kernel[0] * kernel[1], layout.lanes), np.int8)


def _copies(graph: IntegerGraph, layer: Concat, layout: _Layout) -> Iterator[Step]:
    group = 0
    copied = _copy(graph.tensors[layer.output])
    for name in layer.inputs:
        part = layout.placed[name]
        one = _ones((1, 1), layout)
        yield _lanewise(layer, layout, one, copied, source=part, group=group)
        group += len(part.channels) // layout.lanes


def _looked_up(graph: IntegerGraph, layer: Table, layout: _Layout) -> Step:
    given = graph.tensors[layer.input]
    table = np.zeros(256, np.uint8)
    codes = np.arange(given.low, given.high + 1)
    table[codes & 0xFF] = layer.values.astype(np.int64) & 0xFF
    return _lanewise(layer, layout, _ones((1, 1), layout), _copy(given), table=table)


def _require_gapless(layer: ArgMax, layout: _Layout) -> None:
    channels = layout.placed[layer.input].channels
    if channels != tuple(range(max(channels) + 1)) + (-1,) * channels.count(-1):
        raise TargetError(
            f"The engine cannot run {layer.name}.",
            why="It would count the places that the parts of a Concat leave empty.",
            fix=f"Give the Concat's inputs a multiple of {layout.lanes} channels.",
        )


def _copy(tensor: Tensor | None) -> Requantize:
    """Codes as they are."""
    low, high = (tensor.low, tensor.high) if tensor else (LOWEST, HIGHEST)
    one, zero = np.array([1], np.int64), np.array([0], np.int64)
    return Requantize(multiplier=one, bias=zero, shift=0, low=low, high=high)


def _by_lane(values: np.ndarray, placed: Placed, lanes: int) -> np.ndarray:
    """int8[groups, taps, lanes] of [kernel rows, columns, channels], zero where no channel is."""
    place = np.array(placed.channels)
    spread = np.zeros((*values.shape[:2], len(place)), np.int8)
    spread[..., place >= 0] = values[..., place[place >= 0]]
    groups = spread.reshape(-1, len(place) // lanes, lanes)
    return np.ascontiguousarray(groups.transpose(1, 0, 2))


def _of_channels(values: np.ndarray, placed: Placed, empty: int) -> np.ndarray:
    """A parameter of each byte of a pixel's words."""
    place = np.array(placed.channels)
    spread = np.full(len(place), empty, np.int64)
    each = np.broadcast_to(values, (max(placed.channels) + 1,))
    spread[place >= 0] = each[place[place >= 0]]
    return spread


def _dense(layer: Conv, layout: _Layout) -> Step:
    source, target = layout.placed[layer.input], layout.placed[layer.output]
    outputs, rows, columns, _ = layer.weights.shape
    place = np.array(source.channels)
    used = int(np.flatnonzero(place >= 0).max()) + 1  # nothing is read of the last word's rest
    spread = np.zeros((len(target.channels), rows, columns, used), np.int8)
    held = place[:used] >= 0
    spread[:outputs, ..., held] = layer.weights[..., place[:used][held]]
    groups = spread.reshape(-1, layout.lanes, rows * columns * used).transpose(0, 2, 1)
    weights = np.ascontiguousarray(groups)
    return _step(layer, (source, target), weights, layer.requantize, channels=used)


def _lanewise(
    layer: Layer,
    layout: _Layout,
    weights: np.ndarray,
    requantize: Requantize,
    *,
    source: Placed | None = None,
    second: Placed | None = None,
    group: int = 0,
    table: np.ndarray | None = None,
) -> Step:
    source = source or layout.placed[layer.inputs[0]]
    target = layout.placed.get(layer.output, source)
    return _step(
        layer, (source, target), weights, requantize, second=second, group=group, table=table
    )


def _step(
    layer: Layer,
    places: tuple[Placed, Placed],
    weights: np.ndarray,
    requantize: Requantize,
    *,
    channels: int = 0,
    second: Placed | None = None,
    group: int = 0,
    table: np.ndarray | None = None,
) -> Step:
    """A loop nest over so many input channels; lanewise if that is 0."""
    source, target = places
    of = target if channels else source
    groups = len(of.channels) // weights.shape[-1]
    picture = (1, 1) if isinstance(layer, ArgMax) else (target.height, target.width)
    # What no channel is in must not win an ArgMax.
    empty = LOWEST if isinstance(layer, ArgMax) else 0
    made = Step(
        name=layer.name,
        kind=type(layer).__name__,
        source=source,
        second=second,
        target=target,
        group=group,
        groups=groups,
        rows=picture[0],
        pixels=picture[1],
        kernel=(1, 2) if second else getattr(layer, "kernel", (1, 1)),
        channels=channels or 1,
        strides=getattr(layer, "strides", (1, 1)),
        pads=getattr(layer, "pads", NO_PADS),
        lanewise=not channels,
        largest=isinstance(layer, MaxPool),
        shared=not channels and len(weights) == 1 and groups > 1,
        weights=weights,
        multiplier=_of_channels(requantize.multiplier, of, 1 if empty else 0),
        bias=_of_channels(requantize.bias, of, empty),
        shift=requantize.shift,
        low=requantize.low,
        high=requantize.high,
        table=table,
    )
    longest = max(made.rows, made.pixels, made.groups, made.channels, *made.kernel)
    if max(longest, source.height + made.pads[0], source.width + made.pads[1]) >= PLACES // 2:
        raise TargetError(
            f"The engine cannot run {layer.name}.",
            why=f"One of its loops is {longest} long; the engine counts to {PLACES // 2}.",
        )
    return made
