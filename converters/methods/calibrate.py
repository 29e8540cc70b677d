"""Calibration: what the samples do in the float model, streamed.

The first pass keeps one minimum and maximum a tensor. Histograms, which percentile and
entropy ranges need, take a second pass, made when they are first asked for. Memory does not
grow with the number of samples: an activation lives no longer than its sample.
onnxruntime's own calibrator is not used: it holds a row of every tensor for every sample, and
drops rows where it is told to hold fewer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from converters.methods.histograms import BINS, Range, entropy_range, percentile_range
from converters.methods.prepare import Prepared, copy_of, float_tensors
from converters.methods.refusal import NotQuantizableError, refusing
from converters.methods.sessions import open_model
from converters.methods.settling import Settling
from edgeml.errors import ModelError

Feeds = Callable[[], Iterable[Sequence[np.ndarray]]]  # each call goes over the samples anew

CALIBRATIONS = ("entropy", "minmax", "percentile")
_COUNTED = 1 << 13  # values of one tensor and sample that a histogram counts


class Statistics:
    """What calibration saw of every float tensor.

    Attributes:
        samples: how many samples were seen.
        seen: the extremes of each tensor.
        settled: for each tensor the number of samples whose range would do for the others
            (`converters.methods.settling`); all samples where none would.
        feeds: where the samples come from.
        equalized: the model equalised, without and with a scale a channel, and what the same
            samples do in it; filled when it is first needed.
    """

    def __init__(
        self,
        prepared: Prepared,
        feeds: Feeds,
        *,
        samples: int,
        seen: Mapping[str, Range],
        settled: Mapping[str, int],
    ) -> None:
        self.samples = samples
        self.seen = dict(seen)
        self.settled = dict(settled)
        self.feeds = feeds
        self.equalized: dict[bool, tuple[Prepared, Statistics]] = {}
        self._prepared = prepared
        self._counts: dict[str, np.ndarray] | None = None
        self._ranges: dict[tuple[str, float], dict[str, Range]] = {}

    def ranges(self, calibration: str = "minmax", percentile: float = 99.99) -> dict[str, Range]:
        """The range of each tensor; the first call for other than minmax takes another pass.

        Args:
            calibration: `minmax`, `percentile` or `entropy`.
            percentile: what a percentile range keeps, in per cent of the values.

        Raises:
            NotQuantizableError: there is no such calibration.
        """
        if calibration not in CALIBRATIONS:
            raise NotQuantizableError(
                f"The recipe asks for the calibration {calibration!r}.",
                why=f"Known are {', '.join(CALIBRATIONS)}.",
            )
        if calibration == "minmax":
            return dict(self.seen)
        key = (calibration, percentile if calibration == "percentile" else 0.0)
        if key not in self._ranges:
            self._ranges[key] = {
                name: percentile_range(counts, self.seen[name], percentile)
                if calibration == "percentile"
                else entropy_range(counts, self.seen[name])
                for name, counts in self.histograms().items()
            }
        return self.seen | self._ranges[key]

    def histograms(self) -> dict[str, np.ndarray]:
        """For each tensor with a finite range the counts, shape (2048,), between its extremes.

        Of a tensor with more than 8,192 values in a sample, evenly chosen ones are counted.
        """
        if self._counts is None:
            self._counts = _count(self._prepared, self.feeds, self.seen)
        return self._counts


def observe(prepared: Prepared, feeds: Feeds) -> Statistics:
    """Run samples through the prepared model and keep what quantization needs of them.

    Args:
        prepared: the model.
        feeds: gives the samples, each a tensor for every input of the model; called again
            for the second pass.

    Raises:
        ModelError: there are no samples.
        NotQuantizableError: the model cannot be observed.
    """
    tensors = float_tensors(prepared.proto)
    if not tensors:
        raise NotQuantizableError(
            "The model cannot be calibrated.", why="It has no float32 tensors."
        )
    settling = Settling(len(tensors))
    with refusing("calibrated"):
        session = open_model(_with_scalars(prepared, tensors, ("ReduceMin", "ReduceMax")))
    for outputs in _run(session, feeds()):
        settling.add(np.array(outputs, np.float32).reshape(-1, 2).T)
    if not settling.samples:
        raise ModelError("There is nothing to calibrate with.", why="No sample reached the model.")
    return Statistics(
        prepared,
        feeds,
        samples=settling.samples,
        seen={
            name: Range(float(low), float(high))
            for name, low, high in zip(tensors, settling.low, settling.high, strict=True)
        },
        settled=dict(zip(tensors, settling.after().tolist(), strict=True)),
    )


def _with_scalars(prepared: Prepared, tensors: Sequence[str], operators: Sequence[str]) -> Any:
    """The model, which answers with a scalar of each tensor for each operator."""
    observed = copy_of(prepared.proto)
    del observed.graph.output[:]
    for index, tensor in enumerate(tensors):
        for operator in operators:
            name = f"edgeml_{operator}_{index}"
            size = operator == "Size"
            settings: dict[str, Any] = {} if size else {"keepdims": 0}
            observed.graph.node.append(
                onnx.helper.make_node(operator, [tensor], [name], name=name, **settings)
            )
            kind = onnx.TensorProto.INT64 if size else onnx.TensorProto.FLOAT
            observed.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, []))
    return observed


def _run(session: Any, feeds: Iterable[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
    names = [i.name for i in session.get_inputs()]
    for feed in feeds:
        with refusing("calibrated"):
            outputs = session.run(None, dict(zip(names, feed, strict=True)))
        yield outputs


def _count(prepared: Prepared, feeds: Feeds, seen: Mapping[str, Range]) -> dict[str, np.ndarray]:
    tensors = [n for n, r in seen.items() if np.isfinite([r.low, r.high]).all()]
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    with refusing("calibrated"):
        sizes = next(_run(open_model(_with_scalars(prepared, tensors, ("Size",))), feeds()))
        steps = [int(size) // _COUNTED | 1 for size in sizes]  # odd: not in step with rows
        session = open_model(_with_selections(prepared, tensors, steps))
    for outputs in _run(session, feeds()):
        for name, values in zip(tensors, outputs, strict=True):
            _add(counts[name], values, seen[name])
    return counts


def _with_selections(prepared: Prepared, tensors: Sequence[str], steps: Sequence[int]) -> Any:
    """The model, which answers with every n-th value of each tensor."""
    observed = copy_of(prepared.proto)
    del observed.graph.output[:]
    numbers = {"flat": -1, "first": 0, "all": np.iinfo(np.int64).max}
    numbers |= {f"step_{step}": step for step in steps}
    observed.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array([number], np.int64), f"edgeml_{name}")
        for name, number in numbers.items()
    )
    for index, (tensor, step) in enumerate(zip(tensors, steps, strict=True)):
        flat, name = f"edgeml_flat_{index}", f"edgeml_selection_{index}"
        bounds = [f"edgeml_{bound}" for bound in ("first", "all", "first", f"step_{step}")]
        observed.graph.node.extend(
            [
                onnx.helper.make_node("Reshape", [tensor, "edgeml_flat"], [flat], name=flat),
                onnx.helper.make_node("Slice", [flat, *bounds], [name], name=name),
            ]
        )
        observed.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None])
        )
    return observed


def _add(counts: np.ndarray, values: np.ndarray, seen: Range) -> None:
    width = seen.high - seen.low
    scale = np.float32(counts.size / width) if width > 0 else np.float32(0)
    places = np.clip((values - np.float32(seen.low)) * scale, 0, counts.size - 1)
    counts += np.bincount(np.nan_to_num(places).astype(np.intp), minlength=counts.size)
