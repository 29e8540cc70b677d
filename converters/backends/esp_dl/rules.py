"""What ESP-DL runs, as its list of operators says."""

from collections.abc import Mapping, Sequence

from converters.backends.graph import Node
from converters.backends.support import EVERY, Constraint
from converters.backends.whole import known_shapes

_MAX_AXES = 4


def axes(node: Node) -> str | None:
    """Tensors have at most 4 axes."""
    most = max((len(t.shape) for t in (*node.inputs, *node.outputs) if t.shape), default=0)
    return None if most <= _MAX_AXES else f"{most}"


def groups(node: Node) -> str | None:
    """A convolution has one group, or as many as input channels."""
    shape = node.inputs[0].shape
    channels = shape[1] if shape and len(shape) > 1 else node.group
    return None if node.group in {1, channels} else f"{node.group} of {channels} channels"


def no_dilation(node: Node) -> str | None:
    """A pool has no dilation."""
    return None if max(node.dilations, default=1) == 1 else f"dilations {node.dilations}"


def no_wrap(node: Node) -> str | None:
    """Padding does not wrap around."""
    mode = node.attributes.get("mode", b"constant")
    return f"the mode {mode.decode()}" if mode == b"wrap" else None


_PLAIN = (
    *("Clip", "Concat", "Constant", "Elu", "Equal", "Exp", "Flatten", "Gather", "Gemm"),
    *("GlobalAveragePool", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity"),
    *("LeakyRelu", "Less", "LessOrEqual", "Log", "PRelu", "Relu", "Reshape", "Resize"),
    *("ReverseSequence", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Tanh"),
    *("Transpose", "Unsqueeze"),
)
TABLE: Mapping[str, Sequence[Constraint]] = {
    **dict.fromkeys(_PLAIN, ()),
    **dict.fromkeys(("Add", "Div", "MatMul", "Mul", "Sub"), (axes,)),
    "AveragePool": (no_dilation,),
    "Conv": (groups,),
    "MaxPool": (no_dilation,),
    "Pad": (no_wrap,),
    EVERY: (known_shapes,),
}
