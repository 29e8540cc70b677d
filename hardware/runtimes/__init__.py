"""How a device runs a model: one small interface, one module for each runtime."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from edgeml.errors import DeviceError, ModelError
from hardware.runtimes.espdl import EspDlRuntime
from hardware.runtimes.ethosu import EthosURuntime
from hardware.runtimes.formats import format_of
from hardware.runtimes.fpga import FpgaRuntime
from hardware.runtimes.interface import (
    Quantization,
    Runtime,
    Session,
    SessionOptions,
    TensorSpec,
    answers,
)
from hardware.runtimes.litert import LiteRtRuntime
from hardware.runtimes.onnx import OnnxRuntime
from hardware.runtimes.openvino import OpenVinoRuntime
from hardware.runtimes.qnn import QnnRuntime
from hardware.runtimes.rockchip import RockchipRuntime
from hardware.runtimes.vitisai import VitisAiRuntime

__all__ = [
    "Quantization",
    "Runtime",
    "Session",
    "SessionOptions",
    "TensorSpec",
    "answers",
    "format_of",
    "open_session",
    "runtimes",
    "runtimes_for",
]

_OURS: dict[str, Callable[[], Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVinoRuntime,
    "litert": LiteRtRuntime,
    "qnn": QnnRuntime,
    "ethosu": EthosURuntime,
    "rknn": RockchipRuntime,
    "esp-dl": EspDlRuntime,
    "fpga": FpgaRuntime,
    "vitisai": VitisAiRuntime,
}
_PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "'edgeml[openvino]'",
    "litert": "'edgeml[litert]'",
    "qnn": "onnxruntime-qnn",
    "rknn": "rknn-toolkit-lite2",
}


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


def runtimes_for(model: Path) -> tuple[str, ...]:
    """The installed runtimes that load files of this model's format, ours first.

    Raises:
        DeviceError: a plug-in cannot be loaded.
    """
    wanted = format_of(model)
    return tuple(
        name
        for name, runtime in runtimes().items()
        if wanted in _formats(runtime) and runtime.info() is not None
    )


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
        missing = getattr(runtime, "missing", str)()  # what of it, where it can tell
        raise DeviceError(
            f"The runtime {name} is not installed.",
            why=missing or f"Installed runtimes: {installed}.",
            fix=f"Install it: {_install(name)}." if name in _PACKAGES else "",
        )
    if not model.is_file():
        raise ModelError(
            f"{name} cannot load {model.name}.",
            why=f"There is no file {model}.",
            fix="Check the path.",
        )
    loads, found = _formats(runtime), format_of(model)
    if loads and found and found not in loads:
        raise ModelError(
            f"{name} cannot run {model.name}.",
            why=f"It loads {' and '.join(loads)}, this is {found}.",
            fix=_who_can(known, found),
        )
    return runtime.load(model, options or SessionOptions())


def _who_can(known: dict[str, Runtime], wanted: str) -> str:
    able = {name: runtime for name, runtime in known.items() if wanted in _formats(runtime)}
    if not able:
        return ""
    installed = [name for name, runtime in able.items() if runtime.info() is not None]
    if installed:
        return f"Use the runtime {' or '.join(installed)}."
    return " ".join(f"{name} can: {_install(name)}." for name in able if name in _PACKAGES)


def _install(name: str) -> str:
    return f"pip install {_PACKAGES[name]}"


def _formats(runtime: Runtime) -> tuple[str, ...]:
    """What a runtime loads; a plug-in that does not say is not held to it."""
    return getattr(runtime, "formats", ())
