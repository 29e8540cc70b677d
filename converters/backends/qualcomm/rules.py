"""What QNN's compiler takes of a model for the HTP, in integers.

From Qualcomm's table of operators of the HTP backend and the plug-in's own checks; what the
compiler says of a model decides, these say it before.
"""

from collections.abc import Mapping, Sequence

from converters.backends.graph import Node
from converters.backends.support import EVERY, Constraint
from converters.backends.whole import known_shapes

_MAX_AXES = 5
_MAX_PICTURE_AXES = 4


def axes(node: Node) -> str | None:
    """Tensors have at most 5 axes."""
    most = max((len(t.shape) for t in (*node.inputs, *node.outputs) if t.shape), default=0)
    return None if most <= _MAX_AXES else f"{most}"


def constant_weights(node: Node) -> str | None:
    """The weights of a convolution are constants."""
    is_constant = len(node.inputs) > 1 and node.inputs[1].is_constant
    return None if is_constant else "weights that are computed"


def flat_convolution(node: Node) -> str | None:
    """Convolutions have one or two dimensions."""
    dimensions = len(node.kernel)
    return None if dimensions + 2 <= _MAX_PICTURE_AXES else f"{dimensions}"


def constant_exponent(node: Node) -> str | None:
    """An exponent is a constant."""
    is_constant = len(node.inputs) > 1 and node.inputs[1].is_constant
    return None if is_constant else "one that is computed"


_PLAIN = (
    *("Abs", "Add", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil"),
    *("Clip", "Concat", "Constant", "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp"),
    *("Expand", "Flatten", "Floor", "Gather", "Gelu", "Gemm", "GlobalAveragePool"),
    *("GlobalMaxPool", "Greater", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization"),
    *("LayerNormalization", "LeakyRelu", "Less", "Log", "LogSoftmax", "LpNormalization", "MatMul"),
    *("Max", "MaxPool", "Min", "Mul", "Neg", "Not", "PRelu", "Pad", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceSum", "Relu", "Reshape", "Resize", "Round", "Shape", "Sigmoid", "Sign"),
    *("Sin", "Slice", "Softmax", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Tanh"),
    *("Tile", "TopK", "Transpose", "Unsqueeze", "Upsample", "Where"),
)
TABLE: Mapping[str, Sequence[Constraint]] = {
    **dict.fromkeys(_PLAIN, ()),
    "Conv": (flat_convolution, constant_weights),
    "ConvTranspose": (flat_convolution, constant_weights),
    "Pow": (constant_exponent,),
    EVERY: (axes, known_shapes),
}
