"""The versions of what can change a release's bytes."""

from importlib.metadata import version

_TOOLS = ("edgeml", "numpy", "onnx", "onnxruntime")


def tool_versions() -> dict[str, str]:
    """Name and version of each."""
    return {tool: version(tool) for tool in _TOOLS}
