"""The versions of what can change a release's bytes."""

from importlib.metadata import version

from converters.toolchains.definition import find

_TOOLS = ("edgeml", "numpy", "onnx", "onnxruntime", "onnxslim")
_TOOLCHAINS = ("ai-edge-quantizer", "onnx2tf")


def tool_versions() -> dict[str, str]:
    """Name and version of each."""
    return {tool: version(tool) for tool in _TOOLS}


def toolchain_versions(*names: str) -> dict[str, str]:
    """Name and version of tools, as the toolchains of their names lock them.

    Without names, of what makes `.tflite` files.
    """
    wanted = names or _TOOLCHAINS
    pinned = (package.split("==") for name in wanted for package in find(name).packages)
    return {name: locked for name, locked in pinned if name in wanted}
