"""What an integer graph computes, in int64: the one oracle that gateware is compared with."""

from math import prod

import numpy as np

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
    SumPool,
    Table,
)


def run(graph: IntegerGraph, codes: np.ndarray) -> np.ndarray:
    """The output's codes, int64[samples, height, width, channels], of the input's."""
    return run_all(graph, codes)[graph.output]


def run_all(graph: IntegerGraph, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor's codes, int64[samples, height, width, channels], by name.

    Args:
        graph: what is computed.
        codes: of its input, of that shape.

    Raises:
        ValueError: codes have another shape, or lie outside the input's range.
    """
    given = graph.tensors[graph.input]
    codes = np.asarray(codes, np.int64)
    if codes.shape[1:] != given.shape:
        raise ValueError(f"codes have the shape {codes.shape[1:]}, the input has {given.shape}")
    if codes.size and (codes.min() < given.low or codes.max() > given.high):
        raise ValueError(f"codes lie outside {given.low} to {given.high}")
    values = {graph.input: codes}
    for layer in graph.layers:
        values[layer.output] = _computed(graph, layer, [values[name] for name in layer.inputs])
    return values


def encode_input(graph: IntegerGraph, samples: np.ndarray) -> np.ndarray:
    """Codes of real samples, shaped [samples, *the ONNX input without its batch axis]."""
    tensor, host = graph.tensors[graph.input], graph.host
    flat = np.asarray(samples, np.float64).reshape(len(samples), -1)[:, host.input_order]
    codes = np.clip(np.floor(flat * host.gain + host.offset + 0.5), tensor.low, tensor.high)
    return codes.astype(np.int64).reshape(-1, *tensor.shape)


def decode_output(graph: IntegerGraph, codes: np.ndarray) -> np.ndarray:
    """Outputs as the ONNX model gives them, of output codes: float32, or int64 of an ArgMax."""
    host = graph.host
    flat = codes.reshape(len(codes), -1)[:, host.output_order]
    if isinstance(graph.layers[-1], ArgMax):
        return flat.reshape(-1, *host.output_shape)
    real = (flat * graph.tensors[graph.output].scale).reshape(-1, *host.output_shape)
    if host.softmax:
        powers = np.exp(real - real.max(axis=-1, keepdims=True))
        real = powers / powers.sum(axis=-1, keepdims=True)
    return real.astype(np.float32)


def windows(
    codes: np.ndarray, kernel: Pair, strides: Pair, pads: Pads, *, fill: float
) -> np.ndarray:
    """What a sliding window sees: [samples, height, width, channels, kernel height and width]."""
    top, left, bottom, right = pads
    padded = np.pad(codes, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    seen = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))
    strided: np.ndarray = seen[:, :: strides[0], :: strides[1]]
    return strided


def _computed(graph: IntegerGraph, layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    codes = inputs[0]
    made: np.ndarray
    match layer:
        case Conv():
            made = layer.requantize(_convolved(layer, codes))
        case MaxPool():
            low = graph.tensors[layer.input].low
            seen = windows(codes, layer.kernel, layer.strides, layer.pads, fill=low)
            made = seen.max(axis=(-2, -1))
        case SumPool():
            seen = windows(codes, layer.kernel, layer.strides, layer.pads, fill=0)
            made = layer.requantize(seen.sum(axis=(-2, -1)))
        case Add():
            first, second = layer.multipliers
            made = layer.requantize(codes * first + inputs[1] * second)
        case Concat():
            made = np.concatenate(inputs, axis=-1)
        case Table():
            made = layer.values[codes - graph.tensors[layer.input].low]
        case ArgMax():
            made = codes.argmax(axis=-1, keepdims=True)
    return made


def _convolved(layer: Conv, codes: np.ndarray) -> np.ndarray:
    """The sums of a convolution, exact: a float64 holds integers up to 2**53, a sum has 32 bits."""
    seen = windows(codes, layer.kernel, layer.strides, layer.pads, fill=0).astype(np.float64)
    weights = layer.weights.astype(np.float64)
    if layer.depthwise:
        sums = np.einsum("nyxcij,cij->nyxc", seen, weights[..., 0])
        return np.asarray(sums, np.int64)
    outputs, rows = len(weights), prod(seen.shape[:3])
    flat = seen.reshape(rows, -1) @ weights.transpose(3, 1, 2, 0).reshape(-1, outputs)
    return np.asarray(flat, np.int64).reshape(*seen.shape[:3], outputs)
