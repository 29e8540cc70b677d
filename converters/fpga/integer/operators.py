"""What each ONNX operator becomes in a `Network`.

Each function takes the builder, the node and its operands; a `ValueError` says why this use of
the operator cannot be computed.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from converters.fpga.integer import moving
from converters.fpga.integer.building import Builder
from converters.fpga.integer.functions import FUNCTIONS
from converters.fpga.integer.graph import CLASSES
from converters.fpga.integer.network import Format, Function, Largest, Linear, Pool, Sum
from converters.fpga.integer.operands import (
    NO_PADS,
    bias_of,
    constant_of,
    dilated,
    is_code,
    levels_of,
    pads_of,
    pair,
    per_output,
    permutation,
    slid,
    tiles,
    ungrouped,
    view_of,
)
from converters.fpga.integer.values import Constant, Value, View, attributes

_Node = Any


def _conv(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    view, weight = view_of(inputs[0]), constant_of(inputs[1], "its weights are computed")
    given = attributes(node)
    weights = weight.value
    if weights.ndim != 4:  # noqa: PLR2004
        raise ValueError(f"it has {weights.ndim - 2} spatial axes, supported are 2")
    weights = dilated(weights, pair(given.get("dilations", (1, 1))))
    tensor, shape = builder.picture(view)
    group, channels = given.get("group", 1), shape[2]
    depthwise = 1 < group == channels == len(weights)
    step = per_output(weight.step, len(weights))
    if not depthwise:
        weights = ungrouped(weights, group)
    kernel = (weights.shape[2], weights.shape[3])
    strides = pair(given.get("strides", (1, 1)))
    pads = pads_of(given, shape, kernel, strides)
    linear = Linear(
        name=builder.name_of(node),
        inputs=(tensor,),
        output=node.output[0],
        weights=weights.transpose(0, 2, 3, 1).astype(np.float64),
        gain=np.ones(len(weights)),
        bias=bias_of(inputs, len(weights)),
        depthwise=depthwise,
        step=step,
        strides=strides,
        pads=pads,
    )
    return builder.added(linear, slid(shape, kernel, strides, pads, len(weights)))


def _gemm(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    given = attributes(node)
    if given.get("transA", 0):
        raise ValueError("its first matrix is transposed")
    weight = constant_of(inputs[1], "its second matrix is computed")
    turned = bool(given.get("transB", 0))
    weights = weight.value if turned else weight.value.T
    step = weight.step
    if step is not None and step.ndim == 2 and not turned:  # noqa: PLR2004
        step = step.T
    view = _dense(builder, node, view_of(inputs[0]), weights, step)
    linear = builder.made[view.tensor]
    assert isinstance(linear, Linear)
    linear.gain = linear.gain * given.get("alpha", 1.0)
    linear.bias = bias_of(inputs, len(weights)) * given.get("beta", 1.0)
    return view


def _matmul(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    weight = constant_of(inputs[1], "it multiplies two tensors that are both computed")
    step = weight.step.T if weight.step is not None else None
    if weight.value.ndim != 2:  # noqa: PLR2004
        raise ValueError(f"its matrix has {weight.value.ndim} axes")
    return _dense(builder, node, view_of(inputs[0]), weight.value.T, step)


def _dense(builder: Builder, node: _Node, view: View, weights: np.ndarray, step: Any) -> View:
    count, features = weights.shape
    places = builder.places(view)
    if places.size != features or places.shape[-1] != features:
        raise ValueError("it multiplies more than one row a sample")
    height, width, channels = shape = builder.network.shapes[view.tensor]
    sorted_weights = np.empty((count, features))
    sorted_weights[:, permutation(places)] = weights
    linear = Linear(
        name=builder.name_of(node),
        inputs=(view.tensor,),
        output=node.output[0],
        weights=sorted_weights.reshape(count, height, width, channels),
        gain=np.ones(count),
        bias=np.zeros(count),
        step=per_output(step, count),
    )
    made = builder.added(linear, (1, 1, count))
    assert shape == builder.network.shapes[view.tensor]
    return View(made.tensor, np.arange(count).reshape(*places.shape[:-1], count), made.shared)


def _pool(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    view, given = view_of(inputs[0]), attributes(node)
    tensor, shape = builder.picture(view)
    average = "Average" in node.op_type
    whole = node.op_type.startswith("Global")
    kernel = shape[:2] if whole else pair(given["kernel_shape"])
    strides = (1, 1) if whole else pair(given.get("strides", (1, 1)))
    pads = pads_of(given, shape, kernel, strides)
    if given.get("ceil_mode", 0) and not tiles(shape, kernel, strides, pads):
        raise ValueError("its last windows reach over the border: export it with ceil_mode 0")
    if any(d != 1 for d in given.get("dilations", [1])):
        raise ValueError("it is dilated: use a MaxPool without, or a strided convolution")
    if average and any(pads) and not given.get("count_include_pad", 0):
        raise ValueError(
            "it leaves its padding out of the average: export it with count_include_pad 1, or "
            "without padding"
        )
    pool = Pool(builder.name_of(node), (tensor,), node.output[0], average, kernel, strides, pads)
    return builder.added(pool, slid(shape, kernel, strides, pads, shape[2]))


def _mean(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    given = attributes(node)
    axes = given.get("axes")
    if axes is None and len(inputs) > 1:
        axes = constant_of(inputs[1], "its axes are computed").value.tolist()
    view = view_of(inputs[0])
    tensor, shape = builder.picture(view)
    if sorted(axis % view.places.ndim for axis in axes or []) != [2, 3]:
        raise ValueError("it is not over height and width")
    pool = Pool(builder.name_of(node), (tensor,), node.output[0], True, shape[:2], (1, 1), NO_PADS)
    made = builder.added(pool, (1, 1, shape[2]))
    places = made.places if given.get("keepdims", 1) else made.places.reshape(1, -1)
    return View(made.tensor, places, made.shared)


def _clip(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    low, high = -np.inf, np.inf
    view = view_of(inputs[0])
    if node.op_type == "Relu":
        low = 0.0
    else:
        given = attributes(node)
        low, high = given.get("min", low), given.get("max", high)
        bounds = [*inputs[1:], None, None]
        low = float(bounds[0].value.item()) if isinstance(bounds[0], Constant) else low
        high = float(bounds[1].value.item()) if isinstance(bounds[1], Constant) else high
    if view.codes:
        return replace(view, codes=view.codes.within(low, high))
    maker = builder.made.get(view.tensor)
    is_largest = isinstance(maker, Pool) and not maker.is_average
    if maker is None or is_largest or view.shared or view.tensor in builder.network.formats:
        view = builder.rescaled(node, view)
        maker = builder.made[view.tensor]
    if high < maker.low or low > maker.high:
        raise ValueError("it leaves one value alone")
    maker.low, maker.high = max(maker.low, low), min(maker.high, high)
    return view


def _function(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    view = view_of(inputs[0])
    given = attributes(node)
    constants = [v.value for v in inputs[1:] if isinstance(v, Constant)]
    places = builder.places(view)
    made = Function(
        builder.name_of(node),
        (view.tensor,),
        node.output[0],
        FUNCTIONS[node.op_type](given, constants),
    )
    builder.network.nodes.append(made)
    builder.network.shapes[made.output] = builder.network.shapes[view.tensor]
    return View(made.output, places, False)


def _arithmetic(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    """Add, Sub, Mul, Div, of two tensors (Add) or of one with constants."""
    first, second = inputs[0], inputs[1]
    if isinstance(first, View) and isinstance(second, View):
        if node.op_type != "Add":
            raise ValueError("both its operands are computed")
        return _sum(builder, node, first, second)
    view, constant = (first, second) if isinstance(first, View) else (second, first)
    view, constant = view_of(view), constant_of(constant, "it has one operand")
    value = constant.value.astype(np.float64)
    reversed_order = isinstance(first, Constant)
    match node.op_type:
        case "Add":
            return builder.affine(node, view, np.ones(1), value)
        case "Mul":
            return builder.affine(node, view, value, np.zeros(1))
        case "Sub":
            sign = -1.0 if reversed_order else 1.0
            return builder.affine(node, view, np.full(1, sign), -sign * value)
        case _ if reversed_order:
            raise ValueError("it divides by what is computed")
    return builder.affine(node, view, 1 / value, np.zeros(1))


def _normalize(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    view = view_of(inputs[0])
    gamma, beta, mean, variance = (
        constant_of(value, "its statistics are computed").value.astype(np.float64)
        for value in inputs[1:5]
    )
    gain = gamma / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    spread = [1, -1] + [1] * (view.places.ndim - 2)
    return builder.affine(node, view, gain.reshape(spread), (beta - mean * gain).reshape(spread))


def _sum(builder: Builder, node: _Node, first: View, second: View) -> View:
    places = [builder.places(view) for view in (first, second)]
    shapes = [builder.network.shapes[view.tensor] for view in (first, second)]
    if shapes[0] != shapes[1] or not np.array_equal(places[0], places[1]):
        raise ValueError("its operands have different shapes")
    made = Sum(builder.name_of(node), (first.tensor, second.tensor), node.output[0])
    builder.added(made, shapes[0])
    return View(made.output, places[0], False)


def _quantize_linear(_builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    """Codes of a format that is kept where it has no zero point; else calibration finds one."""
    view = view_of(inputs[0])
    scale = constant_of(inputs[1], "its scale is computed").value
    zero = inputs[2].value if isinstance(inputs[2], Constant) else np.zeros(1, np.uint8)
    if scale.size != 1 or attributes(node).get("block_size", 0):
        raise ValueError("it has more than one scale")
    if not is_code(zero.dtype):
        raise ValueError(f"its codes are {zero.dtype}, supported are integers of 2 to 8 bits")
    bits, low, high = levels_of(zero.dtype)
    if int(zero.item()) not in {0, low}:
        return view
    is_signed = int(zero.item()) != low  # with the least code for 0, nothing is below zero
    span = (low, high) if is_signed else (0, high - low)
    return replace(view, codes=Format(float(scale.item()), bits, is_signed, *span))


def _dequantize_linear(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    view = view_of(inputs[0])
    return builder.stored(node, replace(view, codes=None), view.codes) if view.codes else view


def _same(_builder: Builder, _node: _Node, inputs: list[Value | None]) -> View:
    return view_of(inputs[0])


def _softmax(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    view = view_of(inputs[0])
    axis = attributes(node).get("axis", -1 if builder.opset >= 13 else 1)  # noqa: PLR2004
    if axis % view.places.ndim != view.places.ndim - 1:
        raise ValueError("it is not over the last axis")
    builder.network.softmax = True
    return view


def _argmax(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    view, given = view_of(inputs[0]), attributes(node)
    places = builder.places(view)
    axis = given.get("axis", 0) % places.ndim
    if places.shape[axis] != places.size or given.get("select_last_index", 0):
        raise ValueError("it is not over one vector, the first of equals")
    if places.size > CLASSES or not np.array_equal(places.ravel(), np.arange(places.size)):
        raise ValueError(f"it is over more than {CLASSES} classes, or over places")
    shape = list(places.shape)
    shape[axis : axis + 1] = [1] if given.get("keepdims", 1) else []
    made = Largest(builder.name_of(node), (view.tensor,), node.output[0])
    builder.network.nodes.append(made)
    builder.network.shapes[made.output] = (1, 1, 1)
    return View(made.output, np.zeros(shape, int), False)


OPERATORS: dict[str, Callable[[Builder, _Node, list[Value | None]], View]] = {
    **dict.fromkeys(FUNCTIONS, _function),
    "Add": _arithmetic,
    "ArgMax": _argmax,
    "AveragePool": _pool,
    "BatchNormalization": _normalize,
    "Clip": _clip,
    "Concat": moving.joined,
    "Conv": _conv,
    "DequantizeLinear": _dequantize_linear,
    "Div": _arithmetic,
    "Dropout": _same,
    "Flatten": moving.moved,
    "Gemm": _gemm,
    "GlobalAveragePool": _pool,
    "GlobalMaxPool": _pool,
    "Identity": _same,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _arithmetic,
    "Pad": moving.padded,
    "QuantizeLinear": _quantize_linear,
    "ReduceMean": _mean,
    "Relu": _clip,
    "Reshape": moving.moved,
    "Slice": moving.sliced,
    "Softmax": _softmax,
    "Squeeze": moving.moved,
    "Sub": _arithmetic,
    "Transpose": moving.moved,
    "Unsqueeze": moving.moved,
}


def supported() -> tuple[str, ...]:
    """The operators that gateware computes, or that cost it nothing, sorted."""
    return tuple(sorted(OPERATORS))
