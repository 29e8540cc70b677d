"""Trained model in, release out: the build host's part of edgeml.

`convert` is the Python name of `edgeml convert`; it is loaded when it is first used.
"""

import os
from importlib import import_module
from typing import Any

# onnxruntime 1.29 and later reports to its maker unless this is set before it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_PUBLIC = {
    "ConversionResult": "converters.result",
    "Recipe": "converters.recipe",
    "convert": "converters.conversion",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'converters' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
