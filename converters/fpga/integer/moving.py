"""What ONNX operators become that compute nothing: they move, skip, pad and join values.

As in `operators`, a `ValueError` says why a use of the operator cannot be followed.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from converters.fpga.integer.building import Builder
from converters.fpga.integer.network import Join, Linear, Pool
from converters.fpga.integer.operands import NO_PADS, constant_of, pair, slid, view_of
from converters.fpga.integer.values import Value, View, attributes, channels_first

_Node = Any


def sliced(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    """Every second (third, ...) row and column, from the first on: the maximum of one place."""
    view, given = view_of(inputs[0]), attributes(node)
    tensor, shape = builder.picture(view)
    if "starts" in given:  # before operator set 10
        starts, ends = list(given["starts"]), list(given["ends"])
        axes, steps = list(given.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        told = [constant_of(v, "its bounds are computed").value.tolist() for v in inputs[1:] if v]
        starts, ends = told[:2]
        axes = told[2] if len(told) > 2 else list(range(len(starts)))  # noqa: PLR2004
        steps = told[3] if len(told) > 3 else [1] * len(starts)  # noqa: PLR2004
    strides = [1, 1, 1, 1]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = view.places.shape[axis]
        if step < 1 or start not in {0, -size} or end < size:
            raise ValueError(
                "it cuts values off: it may only skip rows and columns, from the first"
            )
        strides[axis % 4] = step
    if strides[:2] != [1, 1]:
        raise ValueError("it leaves channels out: give the layer before fewer outputs")
    pool = Pool(
        builder.name_of(node), (tensor,), node.output[0], False, (1, 1), pair(strides[2:]), NO_PADS
    )
    return builder.added(pool, slid(shape, (1, 1), pair(strides[2:]), NO_PADS, shape[2]))


def padded(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    """Zeros around a picture, or channels of zeros: a convolution of one place by ones."""
    view, given = view_of(inputs[0]), attributes(node)
    tensor, shape = builder.picture(view)
    ends = given.get("pads") or constant_of(inputs[1], "its padding is computed").value.tolist()
    filled = given.get("value", 0)
    if len(inputs) > 2 and inputs[2]:  # noqa: PLR2004
        filled = constant_of(inputs[2], "what it pads with is computed").value.item()
    if given.get("mode", "constant") != "constant" or filled or (len(inputs) > 3 and inputs[3]):  # noqa: PLR2004
        raise ValueError("it pads with other values than zero")
    if min(ends) < 0 or ends[0] or ends[4]:
        raise ValueError("it cuts values off, or pads the batch")
    before, channels = ends[1], shape[2] + ends[1] + ends[5]
    weights = np.zeros((channels, 1, 1, shape[2]))
    weights[range(before, before + shape[2]), 0, 0, range(shape[2])] = 1
    linear = Linear(
        name=builder.name_of(node),
        inputs=(tensor,),
        output=node.output[0],
        weights=weights,
        gain=np.ones(channels),
        bias=np.zeros(channels),
        pads=(ends[2], ends[3], ends[6], ends[7]),
    )
    return builder.added(linear, slid(shape, (1, 1), (1, 1), linear.pads, channels))


def joined(builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    """Channels side by side."""
    views = [view_of(value) for value in inputs]
    for view in views:
        builder.picture(view) if view.places.ndim == 4 else _vector(builder, view)  # noqa: PLR2004
    axis = attributes(node)["axis"] % views[0].places.ndim
    if axis != 1:
        raise ValueError("it does not join channels")
    shapes = [builder.network.shapes[view.tensor] for view in views]
    if len({shape[:2] for shape in shapes}) > 1:
        raise ValueError("its operands have different sizes")
    shape = (*shapes[0][:2], sum(shape[2] for shape in shapes))
    made = Join(builder.name_of(node), tuple(view.tensor for view in views), node.output[0])
    builder.network.nodes.append(made)
    builder.network.shapes[made.output] = shape
    places = channels_first(shape)
    flat = views[0].places.ndim == 2  # noqa: PLR2004
    return View(made.output, places.reshape(1, -1) if flat else places, False)


def _vector(builder: Builder, view: View) -> None:
    if builder.network.shapes[view.tensor][:2] != (1, 1):
        raise ValueError("it joins flattened pictures")


def moved(_builder: Builder, node: _Node, inputs: list[Value | None]) -> View:
    """Another shape of the same values."""
    view, given = view_of(inputs[0]), attributes(node)
    places = view.places
    rest = [constant_of(v, "its shape is computed").value for v in inputs[1:] if v]
    axes = given.get("axes") or (rest[0].tolist() if rest else None)
    match node.op_type:
        case "Transpose":
            moved = places.transpose(given.get("perm") or range(places.ndim)[::-1])
        case "Flatten":
            axis = given.get("axis", 1)
            moved = places.reshape(int(np.prod(places.shape[:axis], dtype=int)), -1)
        case "Squeeze":
            moved = np.squeeze(places, tuple(axes) if axes else None)
        case "Unsqueeze":
            moved = np.expand_dims(places, tuple(axes or ()))
        case _:
            wanted = rest[0].tolist()
            sizes = [d or places.shape[i] for i, d in enumerate(wanted)]
            moved = places.reshape(sizes)
    if moved.ndim < 1 or moved.shape[0] != 1:
        raise ValueError("it mixes samples of a batch")
    return replace(view, places=moved)
