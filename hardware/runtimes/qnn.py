"""Qualcomm's HTP as a runtime: files that QNN compiled, by onnxruntime's plug-in provider.

The package `onnxruntime-qnn` brings the provider. On a device's Arm processor it runs the file
on the Hexagon; on x86-64 the same code runs it on QNN's simulator of the HTP, which answers in
its arithmetic and in times that mean nothing. A file runs on the architecture that it was
compiled for: QNN gives no promise of what another one makes of it, so that a device that has
another must be refused before (`dev.edgeml.requires`).
"""

import importlib
import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeml.errors import ModelError
from hardware.capabilities import RuntimeInfo
from hardware.runtimes.formats import QNN_CONTEXT, format_of
from hardware.runtimes.interface import Session, SessionOptions
from hardware.runtimes.onnx import first_line, nodes_by_provider, settings_of, spec_of
from hardware.runtimes.refusal import does_not_load, fits, no_provider, refused, require_in_use

NAME = "qnn"
PACKAGE = "onnxruntime-qnn"
PROVIDER = "QNNExecutionProvider"
HTP = "htp"
SIMULATOR = "htp-simulator"


class QnnRuntime:
    """The runtime `qnn`; its provider is `htp` on a device and `htp-simulator` on x86-64."""

    name = NAME
    formats: tuple[str, ...] = (QNN_CONTEXT,)

    def info(self) -> RuntimeInfo | None:
        """The installed plug-in, read without importing it."""
        try:
            return RuntimeInfo(name=NAME, version=version(PACKAGE), providers=(_here(),))
        except PackageNotFoundError:
            return None

    def load(self, model: Path, options: SessionOptions) -> Session:
        """Load a compiled file; see `Runtime.load`."""
        return QnnSession(model, options)


class QnnSession:
    """A compiled model on the HTP, or on its simulator."""

    def __init__(self, model: Path, options: SessionOptions) -> None:
        if options.provider not in {"", _here()}:
            raise no_provider(NAME, options.provider, (_here(),))
        if format_of(model) != QNN_CONTEXT:
            raise ModelError(
                f"qnn cannot run {model.name}.",
                why="It was not compiled for an HTP; compiling takes more than a device has.",
                fix="Convert it: edgeml convert --target npu-qualcomm-htp-v73.",
            )
        ort, devices, backend = _plugin()
        settings = settings_of(ort, options)
        settings.add_provider_for_devices(
            devices, {"backend_path": backend, "htp_performance_mode": "sustained_high_performance"}
        )
        try:
            self._session: Any = ort.InferenceSession(str(model), settings)
        except Exception as error:
            raise ModelError(
                f"qnn cannot load {model.name}.",
                why=first_line(error),
                fix=f"Check that it is whole, and that {PACKAGE} is no older than what made it.",
            ) from error
        require_in_use(NAME, PROVIDER, self._session.get_providers())
        self.inputs = tuple(spec_of(value) for value in self._session.get_inputs())
        self.outputs = tuple(spec_of(value) for value in self._session.get_outputs())

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference.

        Raises:
            ModelError: the tensors do not fit the model's inputs, or it failed on them.
        """
        if not fits(self.inputs, inputs):
            raise refused(self.inputs, inputs, "")
        feed = {spec.name: tensor for spec, tensor in zip(self.inputs, inputs, strict=True)}
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, feed)
        except Exception as error:
            raise refused(self.inputs, inputs, first_line(error)) from error
        return outputs

    def placement(self) -> dict[str, int]:
        """How many nodes the HTP, or its simulator, runs; what was compiled together is one."""
        found = nodes_by_provider(self._session)
        return {_here() if name == PROVIDER else name: count for name, count in found.items()}

    def close(self) -> None:
        """Drop the session; onnxruntime frees it with the last reference."""
        self._session = None


def _here() -> str:
    return HTP if platform.machine() == "aarch64" else SIMULATOR


def _plugin() -> tuple[Any, list[Any], str]:
    """The package with the plug-in in it, the devices it is for, and the HTP's library."""
    ort, plugin = _registered()
    devices = _devices(ort)
    npus = [d for d in devices if d.device.type == ort.OrtHardwareDeviceType.NPU]
    if not devices:
        raise no_provider(NAME, PROVIDER, ort.get_available_providers())
    return ort, npus or devices[:1], plugin.get_qnn_htp_path()


@cache
def _registered() -> tuple[Any, Any]:
    """Both packages, the plug-in registered: once a process, by whomever; again is an error."""
    try:
        ort, plugin = map(importlib.import_module, ("onnxruntime", "onnxruntime_qnn"))
    except ImportError as error:
        raise does_not_load(NAME, str(error)) from error
    ort.set_default_logger_severity(3)
    if _devices(ort):
        return ort, plugin
    try:
        ort.register_execution_provider_library(PROVIDER, plugin.get_library_path())
    except Exception as error:
        raise does_not_load(NAME, first_line(error)) from error
    return ort, plugin


def _devices(ort: Any) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
