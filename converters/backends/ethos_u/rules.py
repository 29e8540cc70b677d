"""What an Ethos-U runs, in terms of ONNX nodes, which onnx2tf and int8 turn into what Vela takes.

Sources: Vela 5.2.0's own report of supported operators, and what onnx2tf makes of each ONNX node.
Vela decides in the end; this says beforehand, in the model's own names, what it will decide.
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from converters.backends.graph import Node
from converters.backends.support import Constraint

_MOST_STRIDE = 3
_MOST_POOL_SIDE = 256
_MOST_POOL = 256 * 256
_MOST_PADDED_POOL_SIDE = 8
_MOST_KERNEL = 64 * 64
_MOST_RANK = 4
_MOST_MATRIX = 1 << 16


def shapes_are_known(node: Node) -> str | None:
    """Every tensor has a constant shape."""
    unknown = [t.name for t in node.outputs if t.shape is None or 0 in t.shape]
    return f"no constant shape for {', '.join(unknown)}" if unknown else None


def batch_is_one(node: Node) -> str | None:
    """Images come one at a time: the batch has the size 1."""
    return (
        f"a batch of {node.shape[0]}"
        if len(node.shape) == _MOST_RANK and node.shape[0] > 1
        else None
    )


def weights_are_constant(node: Node) -> str | None:
    """Weights and biases are constants of the model."""
    computed = [t.name for t in node.inputs[1:] if t.name and not t.is_constant]
    return f"computed {', '.join(computed)}" if computed else None


def convolves_in_the_plane(node: Node) -> str | None:
    """Convolutions and pools have one or two axes."""
    return f"{len(node.kernel)} axes" if len(node.kernel) not in {1, 2} else None


def kernel_fits(node: Node) -> str | None:
    """A kernel has at most 64 x 64 weights, dilation included."""
    spread = [(k - 1) * d + 1 for k, d in zip(node.kernel, node.dilations, strict=False)]
    return f"a kernel of {_by(spread)}" if prod(spread) > _MOST_KERNEL else None


def stride_is_small(node: Node) -> str | None:
    """Strides lie between 1 and 3."""
    return (
        f"strides of {_by(node.strides)}" if max(node.strides, default=1) > _MOST_STRIDE else None
    )


def wide_stride_is_plain(node: Node) -> str | None:
    """Strides above 3 need a dilation of 1 and no padding."""
    wide = max(node.strides, default=1) > _MOST_STRIDE
    plain = set(node.dilations) <= {1} and not _is_padded(node)
    return f"strides of {_by(node.strides)}" if wide and not plain else None


def depthwise_stride_is_small(node: Node) -> str | None:
    """A depthwise convolution's strides lie between 1 and 3."""
    return stride_is_small(node) if node.group > 1 else None


def groups_are_whole_or_depthwise(node: Node) -> str | None:
    """A convolution has one group, or one for each channel; others become many small ones."""
    channels = (node.inputs[0].shape or (0, 0))[1] if len(node.inputs[0].shape or ()) > 1 else 0
    return (
        f"{node.group} groups of {channels} channels" if node.group not in {1, channels} else None
    )


def pool_fits(node: Node) -> str | None:
    """A pool has at most 256 x 256 values and is at most 256 high; a padded average has 8 x 8."""
    kernel = node.kernel
    if node.operator == "AveragePool" and _is_padded(node):
        return f"{_by(kernel)}, padded" if max(kernel) > _MOST_PADDED_POOL_SIDE else None
    return _by(kernel) if prod(kernel) > _MOST_POOL or kernel[0] > _MOST_POOL_SIDE else None


def transposed_stride_is_one_or_two(node: Node) -> str | None:
    """A transposed convolution has strides of 1 or 2, the same in both directions."""
    return (
        None if node.strides in {(1,), (2,), (1, 1), (2, 2)} else f"strides of {_by(node.strides)}"
    )


def rank_is_at_most_four(node: Node) -> str | None:
    """Tensors have at most four axes."""
    ranks = [len(t.shape) for t in (*node.inputs, *node.outputs) if t.shape is not None]
    return f"{max(ranks)} axes" if ranks and max(ranks) > _MOST_RANK else None


def matrix_fits(node: Node) -> str | None:
    """A product of two computed matrices has at most 65,536 columns and as many to sum over."""
    if any(t.is_constant for t in node.inputs[:2]) or not node.shape:
        return None
    reduced = (node.inputs[0].shape or (0,))[-1]
    largest = max(node.shape[-1], reduced)
    return f"{largest}" if largest > _MOST_MATRIX else None


def softmax_is_over_the_last_axis(node: Node) -> str | None:
    """A softmax is over the last axis."""
    axis, rank = int(node.attributes.get("axis", -1)), len(node.shape)
    return f"axis {axis} of {rank}" if rank and axis % rank != rank - 1 else None


def transpose_moves_three_axes(node: Node) -> str | None:
    """A transpose on an Ethos-U55 or U65 has at most three axes longer than 1."""
    moved = [size for size in node.shape if size != 1]
    return f"{len(moved)} axes" if len(moved) > _MOST_RANK - 1 else None


def slope_is_constant(node: Node) -> str | None:
    """Slopes, limits and sizes are constants of the model."""
    return weights_are_constant(node)


def resizes_by_two(node: Node) -> str | None:
    """A resize doubles, quadruples or octuples both sides, or leaves them."""
    before = node.inputs[0].shape
    if not before or not node.shape or 0 in before:
        return None
    factors = {after / size for size, after in zip(before[2:], node.shape[2:], strict=True)}
    return f"factors of {factors}" if not factors <= {1.0, 2.0, 4.0, 8.0} else None


def slice_steps_lie_inside(node: Node) -> str | None:
    """A slice skips values over axes between the first and the last alone, and never backwards."""
    axes, steps = _constant(node, 3), _constant(node, 4)
    rank = len(node.shape)
    if not rank or steps is None:
        return None
    named = range(len(steps)) if axes is None else axes
    for axis, step in zip(named, steps, strict=False):
        outside = axis % rank in {0, rank - 1} if rank > 1 else True
        if step < 0 or (step != 1 and outside):
            return f"steps of {step} over axis {axis} of {rank}"
    return None


def is_no_float_constant_of_huge_range(node: Node) -> str | None:
    """Constants are finite."""
    bad = [t.name for t in node.inputs if t.is_constant and _is_infinite(t.value)]
    return f"infinite values in {', '.join(bad)}" if bad else None


_EVERY = (shapes_are_known, batch_is_one, is_no_float_constant_of_huge_range)
_POOL = (convolves_in_the_plane, pool_fits, wide_stride_is_plain)

_CONVOLUTION = (convolves_in_the_plane, weights_are_constant)
_ANY_SHAPE = (
    *("ArgMax", "Dropout", "Expand", "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool"),
    *("Identity", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Shape"),
    *("Squeeze", "Transpose", "Unsqueeze"),
)
_BY_ELEMENT = (
    *("Abs", "Add", "Concat", "Div", "Elu", "Exp", "Gather", "Gelu", "HardSigmoid", "HardSwish"),
    *("LeakyRelu", "Log", "Max", "Min", "Mul", "Neg", "Relu", "Sigmoid", "Split", "Sub", "Tanh"),
    "Tile",
)

U85: Mapping[str, Sequence[Constraint]] = {
    "*": _EVERY,
    "Conv": (*_CONVOLUTION, kernel_fits, groups_are_whole_or_depthwise),
    "ConvTranspose": (*_CONVOLUTION, transposed_stride_is_one_or_two),
    "MatMul": (matrix_fits,),
    "AveragePool": (convolves_in_the_plane, pool_fits),
    "MaxPool": (convolves_in_the_plane, pool_fits),
    "Softmax": (softmax_is_over_the_last_axis,),
    "Resize": (resizes_by_two,),
    "PRelu": (slope_is_constant,),
    "BatchNormalization": (weights_are_constant,),
    "Clip": (slope_is_constant,),
    "Pad": (slope_is_constant,),
    "Slice": (rank_is_at_most_four, slope_is_constant, slice_steps_lie_inside),
    **dict.fromkeys(_ANY_SHAPE, ()),
    **dict.fromkeys(_BY_ELEMENT, (rank_is_at_most_four,)),
}

U55: Mapping[str, Sequence[Constraint]] = {
    **{name: rules for name, rules in U85.items() if name not in {"Div", "Gather"}},
    "Conv": (*U85["Conv"], wide_stride_is_plain, depthwise_stride_is_small),
    "AveragePool": _POOL,
    "MaxPool": _POOL,
    "Transpose": (transpose_moves_three_axes,),
}


def _is_padded(node: Node) -> bool:
    pads = node.attributes.get("pads", ())
    automatic = node.attributes.get("auto_pad", b"NOTSET")
    return any(pads) or automatic in {b"SAME_UPPER", b"SAME_LOWER"}


def _constant(node: Node, place: int) -> list[int] | None:
    """The numbers of an input that the model holds; None of another, or one left out."""
    given = node.inputs[place] if place < len(node.inputs) else None
    return None if given is None or not given.is_constant else [int(v) for v in given.value]


def _is_infinite(value: np.ndarray) -> bool:
    return value.dtype.kind == "f" and not np.isfinite(value).all()


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
