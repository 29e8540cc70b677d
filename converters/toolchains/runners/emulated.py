"""Runs under an emulated processor: says what it is and multiplies 8-bit numbers on it."""

import base64
import importlib
import os
import platform
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# MatMulInteger of a [1, 8] uint8 input with eight weights of 127, opset 10.
_MODEL = base64.b64decode(
    "CAY6XAoYCgFhCgFiEgF5Ig1NYXRNdWxJbnRlZ2VyEgFnKhMICAgBEANCAWJKCH9/f39/f39/WhMKAWES"
    "DgoMCAISCAoCCAEKAggIYhMKAXkSDgoMCAYSCAoCCAEKAggBQgQKABAK"
)
_EXACT = 8 * 255 * 127


def check() -> dict[str, Any]:
    """The processor, and whether its sums of products saturate."""
    import numpy as np
    import onnxruntime as ort

    features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    session = ort.InferenceSession(_MODEL)
    (total,) = session.run(None, {"a": np.full((1, 8), 255, np.uint8)})
    return {
        "machine": platform.machine(),
        "features": sorted(name.lower() for name, there in features.items() if there),
        "onnxruntime": ort.__version__,
        "saturates": int(total[0, 0]) != _EXACT,
    }
