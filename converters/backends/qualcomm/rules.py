"""What QNN's compiler takes of a model for the HTP, in integers.

The operators are those of onnxruntime-qnn's list of which its version 2.7.0, with QNN 2.51, took a
node, quantized as this backend does it, for a v73 (`tests/converters/test_qualcomm_operators.py`
asks it). What the compiler says of a model decides; these say it before.
"""

from collections.abc import Mapping, Sequence

from converters.backends.graph import Node
from converters.backends.support import EVERY, Constraint
from converters.backends.whole import known_shapes

_MAX_AXES = 5


def axes(node: Node) -> str | None:
    """Tensors have at most 5 axes."""
    most = max((len(t.shape) for t in (*node.inputs, *node.outputs) if t.shape), default=0)
    return None if most <= _MAX_AXES else f"{most}"


_TAKEN = (
    *("Abs", "Add", "And", "ArgMax", "ArgMin", "Asin", "Atan", "AveragePool"),
    *("BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant", "Conv"),
    *("ConvTranspose", "Cos", "CumSum", "DepthToSpace", "Div", "Einsum", "Elu", "Equal", "Exp"),
    *("Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm"),
    *("GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample"),
    *("GroupNormalization", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization"),
    *("IsNaN", "LRN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log"),
    *("LogSoftmax", "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool", "Mean", "Min"),
    *("Mish", "Mul", "Neg", "Not", "Or", "PRelu", "Pad", "Pow", "RMSNormalization", "Reciprocal"),
    *("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape"),
    *("Resize", "Round", "ScatterElements", "Shape", "Sigmoid", "Sign", "Sin", "Slice", "Softmax"),
    *("Softplus", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tan"),
    *("Tanh", "Tile", "TopK", "Transpose", "Unsqueeze", "Upsample", "Where", "Xor"),
)
TABLE: Mapping[str, Sequence[Constraint]] = {
    **dict.fromkeys(_TAKEN, ()),
    EVERY: (axes, known_shapes),
}
