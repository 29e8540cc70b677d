"""onnxruntime sessions that methods use to fold, observe and compare: one thread, no messages."""

from typing import Any

import onnxruntime as ort

BASIC = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
NONE = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def options_of(level: Any) -> Any:
    """Session options of one thread, so that sums have one order and give the same bytes."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its warnings speak of the throw-away session
    return options


def open_model(proto: Any, level: Any = NONE) -> Any:
    """A CPU session of an `onnx.ModelProto`; raises what onnxruntime raises."""
    return open_bytes(proto.SerializeToString(), level)


def open_bytes(model: bytes, level: Any = ALL) -> Any:
    """A CPU session of a model file's bytes; raises what onnxruntime raises."""
    return ort.InferenceSession(model, options_of(level), providers=["CPUExecutionProvider"])
