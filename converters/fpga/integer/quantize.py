"""From a float network and what its tensors held to an integer graph.

Scales of activations are one for a tensor, those of weights one for an output channel; both are
symmetric. A layer's real factor, `input scale * weight scale / output scale`, becomes an integer
multiplier of 15 bits and one shift for all its channels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from converters.fpga.integer.emit import Emitter
from converters.fpga.integer.graph import Host, IntegerGraph
from converters.fpga.integer.network import Format, Join, Network, Pool, evaluate
from converters.methods.refusal import NotQuantizableError

_KEPT_VALUES = 1 << 16  # of each tensor, of which its scale is found
_CLIPPED = np.linspace(0.35, 1.0, 40)  # shares of the largest value that a range may end at


@dataclass(frozen=True)
class Widths:
    """How many bits: of each layer's weights, of activations; and how scales are found.

    Attributes:
        weights: by layer's name; `default` for others.
        default: bits of weights.
        activations: bits of every tensor that is neither input nor output: these have 8.
        clipped: ranges end where the squared error is least, not at the extremes.
        powers_of_two: all factors are powers of two, so that nothing is multiplied.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    default: int = 8
    activations: int = 8
    clipped: bool = True
    powers_of_two: bool = False


@dataclass(eq=False)
class Observed:
    """What a tensor held on calibration samples; `mean` is by channel."""

    low: float
    high: float
    values: np.ndarray
    mean: np.ndarray


def observe(network: Network, batches: Iterable[np.ndarray]) -> dict[str, Observed]:
    """What every tensor holds on samples, [samples, *the model's input].

    Raises:
        NotQuantizableError: there is no sample, or a value that is not finite.
    """
    seen: dict[str, list[Observed]] = {}
    for batch in batches:
        for name, values in evaluate(network, batch).items():
            if not np.isfinite(values).all():
                raise NotQuantizableError(
                    "Calibration cannot be finished.", why=f"{name} is not finite."
                )
            stride = max(1, values.size * 8 // _KEPT_VALUES)
            part = Observed(
                low=float(values.min()),
                high=float(values.max()),
                values=values.ravel()[::stride],
                mean=values.mean(axis=(0, 1, 2), dtype=np.float64),
            )
            seen.setdefault(name, []).append(part)
    if not seen:
        raise NotQuantizableError("There is nothing to calibrate with.", why="No sample was given.")
    return {name: _joined(parts) for name, parts in seen.items()}


def quantize(network: Network, observed: Mapping[str, Observed], widths: Widths) -> IntegerGraph:
    """The integer graph of a network.

    Raises:
        NotQuantizableError: a sum would not fit into an accumulator.
    """
    formats = _formats(network, observed, widths)
    emitter = Emitter(network, formats, widths.powers_of_two)
    for node in network.nodes:
        means = [observed[name].mean for name in node.inputs]
        emitter.emit(node, means, widths.weights.get(node.name, widths.default))
    return IntegerGraph(
        tensors=emitter.tensors,
        input=network.input,
        output=emitter.current[network.output],
        layers=tuple(emitter.layers),
        host=_host(network, formats[network.input]),
    )


def _host(network: Network, entered: Format) -> Host:
    return Host(
        input_shape=network.input_shape,
        input_order=network.input_order,
        gain=network.gain / entered.scale,
        offset=network.offset / entered.scale,
        output_shape=network.output_shape,
        output_order=network.output_order,
        softmax=network.softmax,
    )


def _joined(parts: list[Observed]) -> Observed:
    """What batches of one tensor held."""
    return Observed(
        low=min(part.low for part in parts),
        high=max(part.high for part in parts),
        values=_sampled(parts),
        mean=np.mean([part.mean for part in parts], axis=0),
    )


def _sampled(parts: list[Observed]) -> np.ndarray:
    values = np.concatenate([part.values for part in parts])
    return values[:: max(1, len(values) // _KEPT_VALUES)]


def _formats(
    network: Network, observed: Mapping[str, Observed], widths: Widths
) -> dict[str, Format]:
    """A format for each tensor; those that only move values have that of what they move."""
    formats: dict[str, Format] = {}
    for names in _groups(network):
        fixed = [network.formats[name] for name in names if name in network.formats]
        if fixed:
            formats |= {name: network.formats.get(name, fixed[0]) for name in names}
            continue
        at_border = bool({network.input, network.output} & set(names))
        chosen = _format(
            [observed[name] for name in names],
            8 if at_border else widths.activations,
            clipped=widths.clipped and not at_border,
            power_of_two=widths.powers_of_two,
        )
        formats |= dict.fromkeys(names, chosen)
    return formats


def _groups(network: Network) -> list[list[str]]:
    """Tensors that share a format: what a MaxPool or a Concat takes and gives."""
    group = {name: [name] for name in network.shapes}
    for node in network.nodes:
        if isinstance(node, Join) or (isinstance(node, Pool) and not node.is_average):
            merged = sorted({name for n in (*node.inputs, node.output) for name in group[n]})
            group |= dict.fromkeys(merged, merged)
    return list({id(names): names for names in group.values()}.values())


def _format(parts: list[Observed], bits: int, *, clipped: bool, power_of_two: bool) -> Format:
    """The range of some tensors together, with the least squared error where it may clip."""
    least, most = min(part.low for part in parts), max(part.high for part in parts)
    signed = least < 0
    high = (1 << (bits - signed)) - 1
    low = -(1 << (bits - 1)) if signed else 0
    largest = max(most / high, least / low if signed else 0.0, 0.0) or 1.0
    if power_of_two:
        best = 2.0 ** np.ceil(np.log2(largest))
        scales = [best, best / 2] if clipped else [best]
    else:
        scales = list(_CLIPPED * largest) if clipped else [largest]
    values = _sampled(parts)
    errors = [
        float(np.square(np.clip(np.round(values / s), low, high) * s - values).sum())
        for s in scales
    ]
    return Format(float(scales[int(np.argmin(errors))]), bits, signed, low, high)
