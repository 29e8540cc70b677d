"""Which nodes lose most by quantization, from one activation-matching pass.

Both models run on a few samples as one graph, which answers with two sums for each node: the
squares of its float output, and of what the quantized output differs by.
"""

import math
from collections.abc import Sequence
from itertools import islice

import msgspec
import numpy as np
import onnx

from converters.methods.calibrate import Feeds
from converters.methods.matching import merge
from converters.methods.prepare import Prepared
from converters.methods.refusal import refusing
from converters.methods.sessions import open_model
from edgeml.errors import ModelError

_LIMIT_DB = 200.0  # better than float arithmetic: no difference


class NodeLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's output lost: its signal-to-quantization-noise ratio in decibels."""

    name: str
    operator: str
    sqnr_db: float


def sensitivity(
    prepared: Prepared,
    quantized: bytes,
    feeds: Feeds,
    *,
    samples: int = 16,
    isolated: bool = True,
) -> tuple[NodeLoss, ...]:
    """The loss at each node of a quantized model, most sensitive first.

    Args:
        prepared: the float model; `reference_of` gives it where equalisation changed it.
        quantized: the model that was made from it, statically, in QDQ form.
        feeds: gives samples.
        samples: how many of them to run.
        isolated: the loss that each node adds on exact inputs; otherwise the loss that has
            gathered up to each node.

    Raises:
        ModelError: there are no samples.
        NotQuantizableError: the models cannot be compared.
    """
    with refusing("compared with its quantized form"):
        merged, pairs = merge(prepared, quantized, isolated=isolated)
        for index, pair in enumerate(pairs):
            _answer_with_sums(merged.graph, index, pair.exact, pair.rounded)
        session = open_model(merged)
    names = [i.name for i in session.get_inputs()]
    sums = np.zeros((len(pairs), 2))
    seen = 0
    for feed in islice(feeds(), samples):
        with refusing("compared with its quantized form"):
            outputs = session.run(None, dict(zip(names, feed, strict=True)))
        sums += np.array(outputs, np.float64).reshape(-1, 2)
        seen += 1
    if not seen:
        raise ModelError("There is nothing to compare with.", why="No sample reached the model.")
    losses = [
        NodeLoss(name=pair.node, operator=pair.operator, sqnr_db=_decibels(signal, noise))
        for pair, (signal, noise) in zip(pairs, sums.tolist(), strict=True)
    ]
    return tuple(sorted(losses, key=lambda loss: (loss.sqnr_db, loss.name)))


def _answer_with_sums(graph: onnx.GraphProto, index: int, exact: str, rounded: str) -> None:
    signal, difference, noise = (
        f"edgeml_{what}_{index}" for what in ("signal", "difference", "noise")
    )
    graph.node.extend(
        [
            onnx.helper.make_node("ReduceSumSquare", [exact], [signal], name=signal, keepdims=0),
            onnx.helper.make_node("Sub", [exact, rounded], [difference], name=difference),
            onnx.helper.make_node("ReduceSumSquare", [difference], [noise], name=noise, keepdims=0),
        ]
    )
    graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [])
        for name in (signal, noise)
    )


def _decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise), within 200; what overflowed counts as lost altogether."""
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return -_LIMIT_DB
    if not noise:
        return _LIMIT_DB
    if not signal:
        return -_LIMIT_DB
    return max(-_LIMIT_DB, min(_LIMIT_DB, 10 * math.log10(signal / noise)))


def worst(losses: Sequence[NodeLoss], count: int) -> tuple[str, ...]:
    """The names of the `count` most sensitive nodes, to keep in float."""
    return tuple(loss.name for loss in losses[:count])
