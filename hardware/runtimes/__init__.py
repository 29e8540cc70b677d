"""How a device runs a model: one small interface, one module for each runtime."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from edgeml.errors import DeviceError
from hardware.runtimes.interface import Runtime, Session, SessionOptions, TensorSpec
from hardware.runtimes.onnx import OnnxRuntime

__all__ = ["Runtime", "Session", "SessionOptions", "TensorSpec", "open_session", "runtimes"]

_OURS: dict[str, Callable[[], Runtime]] = {"onnxruntime": OnnxRuntime}


def runtimes() -> dict[str, Runtime]:
    """Every runtime that edgeml knows, ours and those of installed plug-ins, by name.

    Raises:
        DeviceError: a plug-in cannot be loaded.
    """
    found: dict[str, Runtime] = {name: make() for name, make in _OURS.items()}
    for entry in entry_points(group="edgeml.runtimes"):
        if entry.name not in found:
            try:
                found[entry.name] = entry.load()()
            except Exception as error:
                raise DeviceError(
                    f"The runtime plug-in {entry.name} cannot be loaded.",
                    why=f"{type(error).__name__}: {error}.",
                    fix="Repair or uninstall the package that brings it.",
                ) from error
    return found


def open_session(name: str, model: Path, options: SessionOptions | None = None) -> Session:
    """Load a model with the runtime of that name.

    Raises:
        DeviceError: there is no such runtime here.
        ModelError: the file is no model that the runtime can run.
    """
    known = runtimes()
    runtime = known.get(name)
    if runtime is None or runtime.info() is None:
        installed = ", ".join(sorted(n for n, r in known.items() if r.info())) or "none"
        raise DeviceError(
            f"The runtime {name} is not installed.",
            why=f"Installed runtimes: {installed}.",
            fix=f"Install it: pip install {name}" if name in _OURS else "",
        )
    return runtime.load(model, options or SessionOptions())
