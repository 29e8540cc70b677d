"""Models quantized as a whole, their ends included, of fixed size: what NPU compilers read."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import onnx

from cloud_sync.evidence import LeftOnCpu, Placement
from converters.axes import fix_sizes, fixed_shapes
from converters.backends.graph import Node, nodes_of
from converters.backends.interface import Job
from converters.methods import quantize
from converters.model import FloatModel
from converters.recipe import Method, Parameters, Rule
from edgeml.errors import ModelError

Rules = tuple[Rule, ...]
Shapes = Mapping[str, tuple[int, ...]]


def static(**parameters: str) -> Rules:
    """The rules of a model that is quantized as a whole."""
    return (Rule(method=Method.STATIC_QDQ, parameters=Parameters(**parameters)),)  # type: ignore[arg-type] # mypy takes the values for each field's


def write_quantized(job: Job, rules: Rules, path: Path) -> tuple[Node, ...]:
    """Write the model, quantized and of fixed size; returns its nodes as they were in float.

    What is folded into constants beforehand is no node.

    Raises:
        ModelError: the rules leave nodes in float.
        NotQuantizableError: the model cannot be quantized.
        UserError: samples differ in an axis that the model leaves free.
    """
    if any(rule.method is not Method.STATIC_QDQ for rule in rules):
        raise ModelError(
            f"{job.target.name} takes quantized models alone.",
            why="The recipe leaves nodes in float, in which nobody has judged them there.",
            fix="Leave out rules of the method float32.",
        )
    workshop, model = job.workshop, job.loaded.model
    with job.exclusively:
        made = quantize(workshop.prepared, workshop.statistics, rules, whole=True)
        shapes = fixed_shapes(model.inputs, workshop.feeds(1), f"the target {job.target.name}")
        folded = workshop.prepared.proto.SerializeToString(deterministic=True)
    proto = onnx.load_model_from_string(made.data)
    fix_inputs(proto, model, shapes)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return folded_nodes(model, folded, shapes)


def fix_inputs(proto: onnx.ModelProto, model: FloatModel, shapes: Shapes) -> None:
    """Give the inputs these shapes, and the sizes in them wherever their symbols stand."""
    symbols = {
        axis: size
        for spec in model.inputs
        for axis, size in zip(spec.shape, shapes[spec.name], strict=True)
        if isinstance(axis, str) and axis != "?"
    }
    sizes = {(name, i): size for name, shape in shapes.items() for i, size in enumerate(shape)}
    fix_sizes(proto, symbols, sizes)


def folded_nodes(model: FloatModel, folded: bytes, shapes: Shapes) -> tuple[Node, ...]:
    """The nodes of a model after what is constant was folded."""
    return nodes_of(msgspec.structs.replace(model, data=folded), shapes)


def known_shapes(node: Node) -> str | None:
    """All shapes are known when the model is compiled."""
    unknown = [t.name for t in node.outputs if t.name and (t.shape is None or 0 in t.shape)]
    return None if not unknown else f"the shape of {unknown[0]} unknown"


def placement_without(
    nodes: Sequence[Node], left: Iterable[tuple[str, str]], reason: str
) -> Placement:
    """The placement of a model of which these nodes (name, operator) stay on the CPU."""
    macs = {node.name: node.macs for node in nodes}
    found = tuple(
        LeftOnCpu(node=name, operator=operator, reason=reason, macs=macs.get(name, 0))
        for name, operator in left
    )
    total = sum(macs.values())
    return Placement(
        operators=len(nodes),
        offloaded=max(0, len(nodes) - len(found)),
        macs=total,
        offloaded_macs=total - sum(node.macs for node in found),
        left=found,
    )
