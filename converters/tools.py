"""The versions of what can change a release's bytes."""

from importlib.metadata import version

from converters.toolchains.definition import find

_TOOLS = ("edgeml", "numpy", "onnx", "onnxruntime", "onnxslim")
_TOOLCHAINS = ("ai-edge-quantizer", "onnx2tf")


def tool_versions() -> dict[str, str]:
    """Name and version of each."""
    return {tool: version(tool) for tool in _TOOLS}


def toolchain_versions() -> dict[str, str]:
    """Name and version of the tools that make `.tflite` files, as their toolchains lock them."""
    pinned = (package.split("==") for name in _TOOLCHAINS for package in find(name).packages)
    return {name: locked for name, locked in pinned if name in _TOOLCHAINS}
