"""edgeml: from a trained ONNX model to a fleet of edge devices that provably run it well.

Importing this package imports nothing else; the public names below load what they need when
they are first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "EdgemlError": "edgeml.errors",
    "ExitCode": "edgeml.errors",
    "Evidence": "cloud_sync.evidence",
    "GateResult": "cloud_sync.evidence",
    "Capabilities": "hardware.capabilities",
    "Requirements": "hardware.requirements",
    "Pipeline": "hardware.pipeline",
    "Release": "cloud_sync.release",
    "resolve": "cloud_sync.release",
    "convert": "converters",
}

__all__ = [
    "Capabilities",
    "EdgemlError",
    "Evidence",
    "ExitCode",
    "GateResult",
    "Pipeline",
    "Release",
    "Requirements",
    "__version__",
    "convert",
    "resolve",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the package that defines it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgeml' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
