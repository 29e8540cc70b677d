"""onnxruntime as a runtime: graph optimisation on, spinning off, nothing dropped silently."""

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeml.errors import ModelError
from hardware.capabilities import RuntimeInfo
from hardware.runtimes.bound import Bindings
from hardware.runtimes.compiled import Compiled
from hardware.runtimes.formats import ONNX, ORT, format_of
from hardware.runtimes.interface import Session, SessionOptions, TensorSpec
from hardware.runtimes.refusal import does_not_load, no_provider, refused, require_in_use

# onnxruntime 1.29 and later report home unless told otherwise before their first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

log = logging.getLogger(__name__)

NAME = "onnxruntime"
CPU_PROVIDER = "CPUExecutionProvider"

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(uint16)": "uint16",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntime:
    """The runtime `onnxruntime`."""

    name = NAME
    formats: tuple[str, ...] = (ONNX, ORT)

    def info(self) -> RuntimeInfo | None:
        """The installed onnxruntime, whichever package brings it; None if it does not load."""
        for package in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"):
            try:
                installed = version(package)
            except PackageNotFoundError:
                continue
            try:
                from onnxruntime import get_available_providers
            except ImportError:
                return None
            return RuntimeInfo(
                name=self.name, version=installed, providers=tuple(get_available_providers())
            )
        return None

    def load(self, model: Path, options: SessionOptions) -> Session:
        """Load an ONNX file; see `Runtime.load`."""
        return OnnxSession(model, options)


class OnnxSession:
    """A model in onnxruntime. Inputs that come again are bound, see `bound`."""

    def __init__(self, model: Path, options: SessionOptions) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise does_not_load(NAME, str(error)) from error

        ort.set_default_logger_severity(3)
        provider = options.provider or CPU_PROVIDER
        if provider not in ort.get_available_providers():
            raise no_provider(NAME, provider, ort.get_available_providers())
        try:
            self._session: Any = _open(ort, model, options, provider)
        except Exception as error:
            raise ModelError(
                f"onnxruntime cannot load {model.name}.",
                why=first_line(error),
                fix="Check that the file is a complete ONNX model that this version supports.",
            ) from error
        require_in_use(NAME, provider, self._session.get_providers())
        self.inputs = tuple(spec_of(value) for value in self._session.get_inputs())
        self.outputs = tuple(spec_of(value) for value in self._session.get_outputs())
        self._input_names = [spec.name for spec in self.inputs]
        self._output_names = [spec.name for spec in self.outputs]
        self._bindings = Bindings(ort, self._session) if provider == CPU_PROVIDER else None

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference.

        Returns:
            The outputs; where the very same arrays were given before, overwritten by the next run.

        Raises:
            ModelError: the tensors do not fit the model's inputs, or it failed on them.
        """
        bindings = self._bindings
        if bindings is not None and (bound := bindings.run(inputs)) is not None:
            return bound
        if not all(tensor.dtype.isnative for tensor in inputs):  # it would misread them
            raise refused(self.inputs, inputs, "")
        try:
            feed = dict(zip(self._input_names, inputs, strict=True))
            outputs: list[NDArray[Any]] = self._session.run(self._output_names, feed)
        except Exception as error:
            raise refused(self.inputs, inputs, first_line(error)) from error
        if bindings is not None:
            bindings.ran(inputs, outputs)
        return outputs

    def placement(self) -> dict[str, int]:
        """How many nodes each provider took.

        One for each provider where onnxruntime does not tell: before 1.24, and of what was
        compiled here before, which is the CPU's alone.
        """
        return nodes_by_provider(self._session)

    def close(self) -> None:
        """Drop the session; onnxruntime frees it with the last reference."""
        if self._bindings is not None:
            self._bindings.close()
        self._session = self._bindings = None


def _open(ort: Any, model: Path, options: SessionOptions, provider: str) -> Any:
    """A session, of what was compiled on this machine where that is kept."""
    load = partial(ort.InferenceSession, providers=[provider])
    # What is made for an accelerator holds its own compiled parts, and is the provider's to keep.
    if not options.compiled or provider != CPU_PROVIDER or format_of(model) != ONNX:
        return load(str(model), settings_of(ort, options))
    kept = Compiled(Path(options.compiled), (NAME, ort.__version__))
    file = kept.find()
    if file is not None:
        try:
            return load(str(file), settings_of(ort, options, compiled=True))
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with it, the model itself is loaded
            log.warning("%s cannot be loaded: %s", file.name, first_line(error))
    return _load_and_keep(kept, partial(load, str(model)), partial(settings_of, ort, options))


def _load_and_keep(kept: Compiled, load: Callable[[Any], Any], settings: Callable[[], Any]) -> Any:
    loaded: list[Any] = []

    def write(path: Path) -> None:
        saving = settings()
        saving.optimized_model_filepath = str(path)
        saving.add_session_config_entry("session.save_model_format", "ORT")
        loaded.append(load(saving))

    try:
        kept.keep(write)
    except Exception as error:  # noqa: BLE001 -- a model that cannot be saved can still run
        log.info("the compiled model is not kept: %s", first_line(error))
    return loaded[0] if loaded else load(settings())


def settings_of(ort: Any, options: SessionOptions, *, compiled: bool = False) -> Any:
    """Session options of onnxruntime for what edgeml asks for."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    settings.graph_optimization_level = (
        levels.ORT_DISABLE_ALL if compiled else levels.ORT_ENABLE_ALL
    )
    spin = "1" if options.spin else "0"
    entries = {
        "session.intra_op.allow_spinning": spin,
        "session.inter_op.allow_spinning": spin,
        "session.record_ep_graph_assignment_info": "1",
    }
    if compiled:
        entries["session.load_model_format"] = "ORT"
    for name, value in entries.items():
        settings.add_session_config_entry(name, value)
    return settings


def nodes_by_provider(session: Any) -> dict[str, int]:
    """How many nodes of a session each provider took."""
    found: dict[str, int] = {}
    with contextlib.suppress(AttributeError, RuntimeError):
        for part in session.get_provider_graph_assignment_info():
            found[part.ep_name] = found.get(part.ep_name, 0) + len(part.get_nodes())
    return found or dict.fromkeys(session.get_providers(), 1)


def spec_of(value: Any) -> TensorSpec:
    """What onnxruntime says of an input or output."""
    shape = tuple(
        axis if isinstance(axis, int) else str(axis or f"axis{i}")
        for i, axis in enumerate(value.shape)
    )
    return TensorSpec(name=value.name, shape=shape, dtype=_DTYPES.get(value.type, value.type))


def first_line(error: Exception) -> str:
    """The line of an error that says what is wrong."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
