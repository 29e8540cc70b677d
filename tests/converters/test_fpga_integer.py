"""The integer model: against integers one by one, against reals within half a code, never over."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.fpga.integer.emit import nearest_taps, requantize
from converters.fpga.integer.from_onnx import integer_graph
from converters.fpga.integer.graph import (
    Add,
    ArgMax,
    Concat,
    Conv,
    IntegerGraph,
    Layer,
    MaxPool,
    Requantize,
    SumPool,
    Table,
    accumulator_bounds,
    decode,
    encode,
)
from converters.fpga.integer.network import evaluate, outputs
from converters.fpga.integer.quantize import Widths, observe, quantize
from converters.fpga.integer.reading import read
from converters.fpga.integer.reference import decode_output, encode_input, run, run_all

from .onnx_nets import mixed_net

SIZE = 6
WIDTHS = (Widths(), Widths(default=3, activations=4), Widths(powers_of_two=True))


def pictures(seed: int, count: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0.2, 1, (count, 1, SIZE, SIZE)).astype(np.float32)


def made(seed: int, widths: Widths = WIDTHS[0]) -> IntegerGraph:
    return integer_graph(mixed_net(seed), pictures(seed + 1, 32), widths)


def one_by_one(graph: IntegerGraph, codes: np.ndarray) -> np.ndarray:
    """The graph in Python's integers: one sample, loops, no numpy arithmetic."""
    values = {graph.input: codes.tolist()}
    for layer in graph.layers:
        values[layer.output] = _layer(graph, layer, [values[name] for name in layer.inputs])
    return np.array(values[graph.output])


def _rule(rule: Requantize, total: int, channel: int) -> int:
    moved = total * int(rule.multiplier[channel]) + int(rule.bias[channel])
    assert abs(moved) < 1 << 47
    return min(max(moved // (1 << rule.shift), rule.low), rule.high)


def _window(layer: Conv | MaxPool | SumPool, given: list[Any], y: int, x: int) -> list[Any]:
    """The places (row and column of the kernel, pixel) that a window sees of the picture."""
    seen = []
    for i, j in product(range(layer.kernel[0]), range(layer.kernel[1])):
        row, column = y * layer.strides[0] + i - layer.pads[0], x * layer.strides[1] + j
        column -= layer.pads[1]
        if 0 <= row < len(given) and 0 <= column < len(given[0]):
            seen.append((i, j, given[row][column]))
    return seen


def _layer(graph: IntegerGraph, layer: Layer, inputs: list[Any]) -> list[Any]:  # noqa: C901 -- a case for each kind of layer
    height, width, channels = graph.tensors[layer.output].shape
    given = inputs[0]

    def value(y: int, x: int, c: int) -> Any:
        match layer:
            case Conv():
                total = 0
                for i, j, pixel in _window(layer, given, y, x):
                    taps = [pixel[c]] if layer.depthwise else pixel
                    for k, code in enumerate(taps):
                        total += code * int(layer.weights[c, i, j, k])
                        assert -(1 << layer.accumulator_bits - 1) <= total
                        assert total < 1 << layer.accumulator_bits - 1
                return _rule(layer.requantize, total, c)
            case SumPool():
                total = sum(pixel[c] for _, _, pixel in _window(layer, given, y, x))
                return _rule(layer.requantize, total, c)
            case MaxPool():
                return max(pixel[c] for _, _, pixel in _window(layer, given, y, x))
            case Add():
                taps = zip(inputs, layer.multipliers, strict=True)
                return _rule(layer.requantize, sum(q[y][x][c] * m for q, m in taps), c)
            case Concat():
                return [code for part in inputs for code in part[y][x]][c]
            case Table():
                return int(layer.values[given[y][x][c] - graph.tensors[layer.input].low])
            case ArgMax():
                return given[0][0].index(max(given[0][0]))

    return [
        [[value(y, x, c) for c in range(channels)] for x in range(width)] for y in range(height)
    ]


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_reference_is_what_integers_give_one_by_one(seed: int, widths: Widths) -> None:
    graph = made(seed, widths)
    assert {type(layer) for layer in graph.layers} >= {Conv, MaxPool, SumPool, Add, Concat, Table}
    tensor = graph.tensors[graph.input]
    rng = np.random.default_rng(seed)
    for codes in (
        rng.integers(tensor.low, tensor.high + 1, tensor.shape),
        np.full(tensor.shape, tensor.low),
        np.full(tensor.shape, tensor.high),
    ):
        assert np.array_equal(run(graph, codes[None])[0], one_by_one(graph, codes))


@pytest.mark.parametrize("widths", WIDTHS)
def test_every_code_lies_in_its_tensors_range(widths: Widths) -> None:
    graph = made(4, widths)
    tensor = graph.tensors[graph.input]
    rng = np.random.default_rng(0)
    values = run_all(graph, rng.integers(tensor.low, tensor.high + 1, (20, *tensor.shape)))
    for name, codes in values.items():
        assert codes.shape[1:] == graph.tensors[name].shape
        assert codes.min() >= graph.tensors[name].low
        assert codes.max() <= graph.tensors[name].high


@pytest.mark.parametrize("seed", range(4))
def test_the_worst_inputs_fill_an_accumulator_and_never_more(seed: int) -> None:
    graph = made(seed)
    for layer in graph.layers:
        if not isinstance(layer, Conv) or any(layer.pads):
            continue
        tensor = graph.tensors[layer.input]
        low, high = accumulator_bounds(layer, tensor)
        flat = layer.weights.reshape(len(layer.weights), -1)
        largest = np.where(flat > 0, tensor.high, tensor.low)  # the input that is worst for each
        assert (flat * largest).sum(axis=1).max() == high
        assert low <= (flat * np.where(flat > 0, tensor.low, tensor.high)).sum(axis=1).min()
        assert -(1 << layer.accumulator_bits - 1) <= low
        assert high < 1 << layer.accumulator_bits - 1


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_is_within_half_a_code_of_its_real_value(seed: int) -> None:
    graph = made(seed)
    codes = encode_input(graph, pictures(seed + 9))
    values = run_all(graph, codes)
    for layer in (layer for layer in graph.layers if isinstance(layer, Conv)):
        rule, half = layer.requantize, 2.0 ** (layer.requantize.shift - 1)
        plain = Requantize(
            np.ones_like(rule.multiplier), np.zeros_like(rule.bias), 0, -(1 << 40), 1 << 40
        )
        sums = _sums(graph, layer, plain, values[layer.input])
        real = (sums * rule.multiplier + rule.bias - half) / 2.0**rule.shift
        clipped = np.clip(real, rule.low, rule.high)
        assert np.abs(values[layer.output] - clipped).max() <= 0.5


def _sums(graph: IntegerGraph, layer: Conv, rule: Requantize, codes: np.ndarray) -> np.ndarray:
    alone = Conv(**layer.__dict__ | {"requantize": rule})
    inner = IntegerGraph(graph.tensors, layer.input, layer.output, (alone,), graph.host)
    return run(inner, codes)


@pytest.mark.parametrize("seed", range(3))
def test_eight_bits_stay_near_the_float_model_and_three_do_not(seed: int) -> None:
    network = read(mixed_net(seed))
    observed = observe(network, [pictures(seed, 64)])
    samples = pictures(seed + 5, 64)
    wanted = outputs(network, evaluate(network, samples))

    def error(widths: Widths) -> float:
        graph = quantize(network, observed, widths)
        given = decode_output(graph, run(graph, encode_input(graph, samples)))
        return float(np.square(given - wanted).mean() / wanted.var())

    eight = error(Widths())
    assert eight < 0.01
    assert error(Widths(default=3, activations=3)) > 4 * eight


def test_the_same_graph_has_the_same_bytes_and_comes_back_from_them() -> None:
    graph = made(1)
    again = decode(encode(graph))
    assert encode(again) == encode(made(1))
    assert again.digest == graph.digest != made(2).digest
    codes = encode_input(graph, pictures(3))
    assert np.array_equal(run(again, codes), run(graph, codes))


def test_codes_of_another_shape_or_range_are_an_error() -> None:
    graph = made(1)
    with pytest.raises(ValueError, match="shape"):
        run(graph, np.zeros((1, 2, 2, 1), int))
    with pytest.raises(ValueError, match="outside"):
        run(graph, np.full((1, SIZE, SIZE, 1), 500))


@given(
    factor=st.floats(1e-7, 100),
    bias=st.floats(-300, 300),
    total=st.integers(-(2**24), 2**24),
)
@settings(max_examples=200)
def test_a_factor_is_kept_to_fifteen_bits(factor: float, bias: float, total: int) -> None:
    rule = requantize("layer", np.array([factor]), np.array([bias]), (-(1 << 40), 1 << 40))
    given_code = int(rule(np.array([total]))[0])
    slack = (abs(total) + 1) * 0.5 / 2.0**rule.shift  # what rounding multiplier and bias may cost
    assert abs(given_code - (total * factor + bias)) <= 0.5 + slack + 1e-6


def test_what_does_not_fit_is_refused_with_the_layers_name() -> None:
    with pytest.raises(Exception, match="classify does not fit"):
        requantize("classify", np.array([1e6]), np.array([0.0]), (0, 255))


@given(ratio=st.floats(0.02, 50))
@settings(max_examples=200)
def test_taps_are_within_a_hundredth_of_a_ratio(ratio: float) -> None:
    first, second = nearest_taps(ratio)
    assert 1 <= min(first, second) <= max(first, second) <= 127
    assert abs(first / second / ratio - 1) < 0.25 / min(first, second) + 0.01
