"""Take what the pipeline computes after its resize into the model (`--fuse`).

Colour order, layout, scale and type before the model, and a softmax behind it, are arithmetic
that ONNX has operators for. Fused, the model takes the picture as it is, `uint8 [1, H, W, C]`,
and the release's pipeline keeps what is left: finding, cropping, resizing. Everything after
this step sees a float model with another input, no more.

    pre:  locate  resize  | colour  scale  layout        post:  softmax  | top_k  threshold
          stays here      | into the model                      in       | stays here

The scale becomes Sub and Div, which no method quantizes, so that the pixels reach the first
layer unrounded. That both ways give the same is checked by running both.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import tomli_w
from onnx import TensorProto, helper, numpy_helper

from converters.axes import fix_sizes
from converters.methods.sessions import open_bytes
from converters.metrics import Metric
from converters.model import FloatModel, describe, parse
from edgeml.errors import UserError
from hardware.pipeline import Pipeline
from hardware.pipeline.definition import (
    Colour,
    Layout,
    Letterbox,
    PreStep,
    Resize,
    Scale,
    Softmax,
)
from hardware.pipeline.postprocessors.anomaly import Deviate
from hardware.pipeline.postprocessors.classification import Classify
from hardware.runtimes.formats import ONNX
from hardware.runtimes.interface import TensorSpec

EQUAL_WITHIN = 1e-4  # of the outputs' range: what another order of float operations may change
CHECKED_SAMPLES = 16  # of calibration and of evaluation data
_COLOURS = 3
_HEAD = b"# What is left of the pipeline: the rest is computed in the model.\n"


class Fused(msgspec.Struct, frozen=True, kw_only=True):
    """A model with a part of its pipeline inside, and the rest of the pipeline.

    `data` is the rest as TOML; `steps` names what is in the model now.
    """

    model: FloatModel
    pipeline: Pipeline
    data: bytes
    steps: tuple[str, ...]


def fuse(model: FloatModel, pipeline: Pipeline) -> Fused:
    """Take the arithmetic at the pipeline's inner ends into the model.

    Raises:
        UserError: there is nothing to take, or the model does not let it in; says why.
    """
    inside = _arithmetic(pipeline.pre)
    outside = pipeline.pre[: len(pipeline.pre) - len(inside)]
    layout = inside[-1] if inside else None
    if pipeline.input != "image":
        raise _refused(f"It takes {pipeline.input}, not images.")
    if isinstance(pipeline.processor, Deviate) and pipeline.processor.score == "reconstruction":
        raise _refused("It compares the model's output with its input, as it is scaled.")
    if not isinstance(layout, Layout):
        raise _refused("Its last step before the model is not layout, which orders the axes.")
    if any(isinstance(step, Scale) for step in outside):
        raise _refused("A step behind scale has to stay outside, and takes floats.")
    if model.format != ONNX:
        raise _refused(f"Only ONNX models take it in, {model.path} is {model.format}.")
    if len(model.inputs) != 1:
        raise _refused(f"It makes one input, the model has {len(model.inputs)}.")
    spec = _sized(model.inputs[0], layout, outside)
    softmax = (
        any(isinstance(step, Softmax) for step in pipeline.post)
        and isinstance(pipeline.processor, Classify)
        and model.outputs[0].dtype == "float32"
    )
    proto = parse(model.path, model.data)
    _insert(proto, model.inputs[0], spec, inside, softmax=softmax)
    data: bytes = proto.SerializeToString(deterministic=True)
    left = msgspec.structs.replace(
        pipeline,
        # To bgr changes gray pictures only: the model takes three channels, whatever comes.
        pre=(
            *outside,
            *(Colour(to="bgr") for step in inside if isinstance(step, Colour)),
            Layout(to="NHWC"),
        ),
        post=tuple(step for step in pipeline.post if not (softmax and isinstance(step, Softmax))),
    )
    return Fused(
        model=describe(model.path, proto, data),
        pipeline=left,
        data=_HEAD + tomli_w.dumps(_without_none(msgspec.to_builtins(left))).encode(),
        steps=(*map(_op, inside), *(["softmax"] if softmax else [])),
    )


def refuse_metric(metric: Metric) -> None:
    """Refuse a metric that compares outputs with what the model is given.

    Raises:
        UserError: it does.
    """
    if metric.needs_inputs:
        raise _refused(
            f"The metric {metric.name} compares outputs with inputs, as they are scaled."
        )


def check_fused(
    fused: Fused, model: FloatModel, pipeline: Pipeline, samples: Iterable[Any]
) -> None:
    """Run pictures through both ways and compare.

    Args:
        fused: what `fuse` made.
        model: the model before it.
        pipeline: the pipeline before it.
        samples: region images.

    Raises:
        UserError: the outputs differ by more than float arithmetic explains.
        ModelError: the pipeline does not fit the model, or an image is none.
    """
    before, after = open_bytes(model.data), open_bytes(fused.model.data)
    one, other = pipeline.runner(model.inputs), fused.pipeline.runner(fused.model.inputs)
    found = ((sample, made) for sample in samples if (made := one.prepare(sample)) is not None)
    for sample, tensors in found:
        wanted = before.run(None, {model.inputs[0].name: tensors[0]})
        frame = other.prepare(sample)
        assert frame is not None, "both ways find the same"
        given = after.run(None, {fused.model.inputs[0].name: frame[0]})
        if "softmax" in fused.steps:
            wanted[0] = _softmax(wanted[0])
        for want, got in zip(wanted, given, strict=True):
            scale = float(np.ptp(want)) or float(np.abs(want).max()) or 1.0
            difference = float(np.abs(want.reshape(got.shape) - got).max()) / scale
            if not difference <= EQUAL_WITHIN:
                raise _refused(f"The outputs would differ by {100 * difference:.2g} % of range.")


class _Graph:
    """Nodes and constants for a graph, under names that it does not have yet."""

    def __init__(self, graph: Any) -> None:
        self._taken = {name for node in graph.node for name in (*node.input, *node.output)}
        self._taken |= {node.name for node in graph.node}
        self._taken |= {value.name for value in (*graph.initializer, *graph.input)}
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    @property
    def casts(self) -> bool:
        """Whether the pixels were made float."""
        return any(node.op_type == "Cast" for node in self.nodes)

    def name(self, wish: str) -> str:
        while wish in self._taken:
            wish += "_"
        self._taken.add(wish)
        return wish

    def add(
        self, operator: str, tensor: str, constant: np.ndarray | None = None, **attributes: Any
    ) -> str:
        """A node that reads a tensor, and a constant beside it; returns its output."""
        name = self.name(f"fused_{operator.lower()}")
        inputs = [tensor]
        if constant is not None:
            inputs.append(self.name(f"{name}_by"))
            self.constants.append(numpy_helper.from_array(constant, inputs[1]))
        output = self.name(f"{name}_output")
        self.nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))
        return output


def _arithmetic(steps: Sequence[PreStep]) -> tuple[PreStep, ...]:
    """The steps at the end that compute each pixel from itself alone, exactly as ONNX does."""
    inside: list[PreStep] = []
    for step in reversed(steps):
        is_order = isinstance(step, Colour) and step.to != "gray"
        if not (is_order or isinstance(step, Scale | Layout)):
            break
        inside.insert(0, step)
    return tuple(inside)


def _sized(given: TensorSpec, layout: Layout, outside: Sequence[PreStep]) -> TensorSpec:
    """The model's input with batch 1, and where it is free the size that the pipeline makes."""
    if len(given.shape) != len(layout.to):
        raise _refused(f"It makes {layout.to}, the model takes {given}.")
    sizes = dict(zip(layout.to, given.shape, strict=True)) | {"N": 1}
    made = next((step for step in reversed(outside) if isinstance(step, Resize | Letterbox)), None)
    for axis, size in (("H", made.height), ("W", made.width)) if made else ():
        if isinstance(sizes[axis], str):
            sizes[axis] = size
    return msgspec.structs.replace(given, shape=tuple(sizes[axis] for axis in layout.to))


def _insert(
    proto: Any,
    given: TensorSpec,
    spec: TensorSpec,
    inside: Sequence[PreStep],
    *,
    softmax: bool,
) -> None:
    """Put the steps into the graph, and a new input before them."""
    graph, layout = proto.graph, inside[-1]
    assert isinstance(layout, Layout)
    sizes = dict(zip(layout.to, spec.shape, strict=True))
    channels = sizes.get("C", 1)
    if isinstance(channels, str):
        raise _refused(f"The model does not say how many channels it takes: {spec}.")
    fixed = zip(given.shape, spec.shape, strict=True)
    fix_sizes(
        proto, {was: now for was, now in fixed if isinstance(was, str) and isinstance(now, int)}, {}
    )
    made = _Graph(graph)
    frame = made.name("frame")
    tensor = _add_pre(made, frame, inside, layout, channels)
    dtype = "float32" if made.casts else "uint8"
    if spec.dtype != dtype:
        raise _refused(f"It makes {dtype}, the model takes {spec}.")
    if made.nodes:
        made.nodes[-1].output[0] = spec.name  # what read the input reads this
    else:
        assert tensor == frame
        frame = spec.name
    before, made.nodes = made.nodes, []
    if softmax:
        output = graph.output[0]
        tensor = made.add("Reshape", output.name, np.array([1, -1], np.int64))
        tensor = made.add("Softmax", tensor, axis=1)
        output.CopyFrom(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [1, None]))
    nodes = [*before, *graph.node, *made.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(made.constants)
    value = next(value for value in graph.input if value.name == spec.name)
    shape = [1, sizes["H"], sizes["W"], channels]
    value.CopyFrom(helper.make_tensor_value_info(frame, TensorProto.UINT8, shape))


def _add_pre(
    made: _Graph, frame: str, inside: Sequence[PreStep], layout: Layout, channels: int
) -> str:
    """The steps as nodes, from uint8 [1, H, W, C] on; returns their output."""
    tensor = frame
    if layout.to == "NCHW":
        tensor = made.add("Transpose", tensor, perm=[0, 3, 1, 2])
    elif layout.to == "NHW":
        tensor = made.add("Reshape", tensor, np.array([0, 0, 0], np.int64))
    for step in inside:
        if isinstance(step, Colour):
            if channels != _COLOURS:
                raise _refused(f"It makes three colours, the model takes {channels} channels.")
            if step.to == "rgb":
                order = np.array([2, 1, 0], np.int64)
                tensor = made.add("Gather", tensor, order, axis=layout.to.index("C"))
        elif isinstance(step, Scale):
            tensor = _add_scale(made, tensor, step, layout, channels)
    return tensor


def _add_scale(made: _Graph, tensor: str, step: Scale, layout: Layout, channels: int) -> str:
    if not made.casts:
        tensor = made.add("Cast", tensor, to=TensorProto.FLOAT)
    for operator, values, neutral in _affine(step):
        if len(values) not in {1, channels}:
            raise _refused(f"It scales {len(values)} channels, the model takes {channels}.")
        shape = [len(values) if axis == "C" else 1 for axis in layout.to]
        if any(value != neutral for value in values):
            tensor = made.add(operator, tensor, np.array(values, np.float32).reshape(shape))
    return tensor


def _affine(step: Scale) -> tuple[tuple[str, list[float], float], ...]:
    """(x * factor - mean) / std as a difference and a quotient, each with what changes nothing."""
    if step.factor == 0:
        raise _refused("Its scale has the factor 0.")
    return (
        ("Sub", [mean / step.factor for mean in step.mean], 0.0),
        ("Div", [deviation / step.factor for deviation in step.std], 1.0),
    )


def _softmax(scores: np.ndarray) -> np.ndarray:
    """As the pipeline computes it, of all scores together."""
    powers = np.exp(scores - scores.max())
    return np.asarray(powers / powers.sum())


def _without_none(tree: Any) -> Any:
    """TOML has no null; what is left out has its default."""
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list | tuple):
        return [_without_none(value) for value in tree]
    return tree


def _op(step: PreStep) -> str:
    return str(step.__struct_config__.tag)


def _refused(why: str) -> UserError:
    return UserError(
        "The pipeline cannot be fused into the model.", why=why, fix="Leave out --fuse."
    )
