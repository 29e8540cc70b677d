"""What rknn-toolkit2 takes, as its documents list operators; others it may take, on the CPU."""

from collections.abc import Mapping, Sequence

from converters.backends.graph import Node
from converters.backends.support import EVERY, Constraint

_MAX_AXES = 4
_MAX_KERNEL = 31
_MAX_STRIDE = 7


def axes(node: Node) -> str | None:
    """Tensors have at most 4 axes."""
    most = max((len(t.shape) for t in (*node.inputs, *node.outputs) if t.shape), default=0)
    return None if most <= _MAX_AXES else f"{most}"


def kernel(node: Node) -> str | None:
    """A kernel has at most 31 x 31 values."""
    return None if max(node.kernel, default=1) <= _MAX_KERNEL else f"{node.kernel}"


def strides(node: Node) -> str | None:
    """Strides are at most 7."""
    return None if max(node.strides, default=1) <= _MAX_STRIDE else f"{node.strides}"


_PLAIN = (
    *("Add", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat"),
    *("Constant", "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten"),
    *("GRU", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater"),
    *("HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LSTM"),
    *("LayerNormalization", "LeakyRelu", "Less", "Log", "MatMul", "Max", "MaxPool", "Min", "Mish"),
    *("Mul", "PRelu", "Pad", "Pow", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu"),
    *("Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split"),
    *("Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze", "Upsample", "Where"),
)
TABLE: Mapping[str, Sequence[Constraint]] = {
    **dict.fromkeys(_PLAIN, ()),
    "Conv": (kernel, strides),
    "ConvTranspose": (kernel, strides),
    EVERY: (axes,),
}
