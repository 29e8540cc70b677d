"""Nodes that 8 bits destroy whatever the calibration: heads with mixed ranges, overflows.

Detectors put boxes (pixels, up to hundreds) and scores (0 to 1) into one tensor; one scale for
both rounds all scores to zero. Such heads are found by the ranges of what is joined.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from converters.methods.calibrate import Statistics
from converters.methods.graph import constants, producers
from converters.methods.histograms import Range
from converters.methods.prepare import Prepared

_DISPARITY = 8.0  # 3 of 8 bits
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def head_nodes(prepared: Prepared, statistics: Statistics, *, layers: int = 0) -> tuple[str, ...]:
    """The nodes of a head to keep in float, in graph order; none if ranges agree.

    A head is there if a Concat that leads to an output without another layer in between joins
    tensors whose ranges differ by more than a factor of 8, or if the model's outputs do. Its
    nodes are all that follow the last convolutions and products.

    Args:
        prepared: the model.
        statistics: what calibration saw of it.
        layers: how many convolutions or products before each output belong to the head.
    """
    graph = prepared.proto.graph
    made_by = producers(graph)
    outputs = [o.name for o in graph.output if o.name in statistics.seen]
    tail = _before(outputs, made_by, layers=0)
    joined = [outputs] + [
        [name for name in node.input if name in statistics.seen]
        for node in graph.node
        if node.op_type == "Concat" and node.name in tail
    ]
    if not any(_disparate(names, statistics.seen) for names in joined):
        return ()
    found = tail if not layers else _before(outputs, made_by, layers=layers)
    return tuple(node.name for node in graph.node if node.name in found)


def overflowing_nodes(
    prepared: Prepared, statistics: Statistics, *, limit: float = float(np.finfo(np.float32).max)
) -> tuple[str, ...]:
    """The nodes that read or make a tensor beyond `limit`, or not finite, in graph order.

    The limit of half precision is 65504.
    """
    known = constants(prepared.proto.graph)
    return tuple(
        node.name
        for node in prepared.proto.graph.node
        if any(
            not _size(statistics.seen[name]) <= limit
            for name in (*node.input, *node.output)
            if name in statistics.seen and name not in known
        )
    )


def _before(outputs: Iterable[str], made_by: Mapping[str, Any], *, layers: int) -> set[str]:
    """The names of the nodes before these tensors, up to and with the given count of layers."""
    left: dict[str, int] = {}
    found: set[str] = set()
    todo = [(name, layers) for name in outputs]
    while todo:
        tensor, budget = todo.pop()
        node = made_by.get(tensor)
        if node is None or left.get(tensor, -1) >= budget:
            continue
        left[tensor] = budget
        if node.op_type in _LAYERS:
            if not budget:
                continue
            budget -= 1
        found.add(node.name)
        todo.extend((name, budget) for name in node.input if name)
    return found


def _disparate(names: Iterable[str], seen: Mapping[str, Range]) -> bool:
    sizes = [size for name in names if (size := _size(seen[name]))]
    return bool(sizes) and max(sizes) > _DISPARITY * min(sizes)


def _size(seen: Range) -> float:
    return max(abs(seen.low), abs(seen.high))
