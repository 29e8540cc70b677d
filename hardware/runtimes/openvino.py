"""OpenVINO as a runtime, on the CPU or an NPU: for latency, in the precision of the file.

On an NPU, a model is compiled for it when it is loaded. A device that is not there is an error,
never another device in its place: AUTO, MULTI and HETERO are no providers here.

OpenVINO's own default computes float models in bfloat16 or float16 where the processor can;
here a float32 model computes in float32 on every machine, so that what was proven on one
holds on the next.
"""

import importlib
import io
import logging
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from operator import is_
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DeviceError, ModelError
from hardware.capabilities import RuntimeInfo
from hardware.runtimes.bundle import pack, unpack
from hardware.runtimes.compiled import Compiled
from hardware.runtimes.formats import ONNX, OPENVINO_IR, format_of
from hardware.runtimes.interface import Session, SessionOptions, TensorSpec
from hardware.runtimes.refusal import does_not_load, fits, no_provider, refused, require_in_use

log = logging.getLogger(__name__)

NAME = "openvino"
CPU = "CPU"
NPU = "NPU"
DRIVER = "intel_vpu"

_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "f64": "float64",
    "bf16": "bfloat16",
    "u8": "uint8",
    "i8": "int8",
    "u16": "uint16",
    "i16": "int16",
    "u32": "uint32",
    "i32": "int32",
    "u64": "uint64",
    "i64": "int64",
    "boolean": "bool",
}
_Specs = tuple[TensorSpec, ...]
_NO_WORK = {"Const", "Input", "Output"}


class OpenVinoRuntime:
    """The runtime `openvino`.

    Args:
        root: below which the kernel's NPUs are looked for.
    """

    name = NAME
    formats: tuple[str, ...] = (ONNX, OPENVINO_IR)

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def info(self) -> RuntimeInfo | None:
        """The installed OpenVINO, imported only where the kernel has an NPU that it may run."""
        try:
            installed = version("openvino")
        except PackageNotFoundError:
            return None
        return RuntimeInfo(name=self.name, version=installed, providers=(CPU, *self._npu()))

    def _npu(self) -> tuple[str, ...]:
        """`NPU` where the driver has taken one and OpenVINO finds it, too."""
        events = self._root.glob("sys/class/accel/accel*/device/uevent")
        try:
            told = (event.read_text(errors="replace") for event in events)
            if not any(f"DRIVER={DRIVER}\n" in text for text in told):
                return ()
            return (NPU,) if NPU in _core().available_devices else ()
        except (DeviceError, RuntimeError, OSError):
            return ()

    def load(self, model: Path, options: SessionOptions) -> Session:
        """Load an ONNX file, an IR's `.xml` with its `.bin` beside, or a bundle of both.

        See `Runtime.load`.
        """
        return OpenVinoSession(model, options)


class OpenVinoSession:
    """A model in OpenVINO.

    Outputs of fixed shape are views of the session's memory, overwritten by the next run;
    others are copies. Inputs that are contiguous and writeable are read where they lie.
    """

    def __init__(self, model: Path, options: SessionOptions) -> None:
        self._ov = _openvino()
        provider = options.provider or CPU
        if provider not in _core().available_devices:
            raise no_provider(NAME, provider, _core().available_devices)
        settings = {"PERFORMANCE_HINT": "LATENCY"}
        if provider == CPU:
            settings |= {
                "EXECUTION_MODE_HINT": "ACCURACY",
                "INFERENCE_PRECISION_HINT": "f32",
                "NUM_STREAMS": "1",
                "INFERENCE_NUM_THREADS": str(options.threads),
                "ENABLE_CPU_PINNING": "NO",  # whose core it is, the process's owner decides
            }
        self._compiled: Any
        try:
            self._compiled, self.inputs, self.outputs = _compile(
                self._ov, model, provider, settings, options.compiled
            )
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"openvino cannot load {model.name}.",
                why=_sentence(error),
                fix="Check that the file is complete, and an IR's .bin beside its .xml.",
            ) from error
        require_in_use(NAME, provider, self._compiled.get_property("EXECUTION_DEVICES"))
        self._provider = provider
        self._request: Any = self._compiled.create_infer_request()
        self._set: tuple[NDArray[Any], ...] = ()  # what the request reads where it lies
        self._lent: list[NDArray[Any]] = []  # copies that it reads, of inputs that cannot be shared
        self._fixed = [port.get_partial_shape().is_static for port in self._compiled.outputs]

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference.

        Raises:
            ModelError: the tensors do not fit the model's inputs, or it failed on them.
        """
        again = len(inputs) == len(self._set) > 0 and all(map(is_, inputs, self._set))
        if not again and not fits(self.inputs, inputs):
            raise refused(self.inputs, inputs, "")
        try:
            # A pipeline prepares every frame in the same arrays; to set them takes 30 us.
            if not again:
                self._set_inputs(inputs)
            # Its infer() is 15 us quicker, but with one thread swallows what goes wrong.
            self._request.start_async()
            self._request.wait()
        except (RuntimeError, TypeError, ValueError) as error:
            raise refused(self.inputs, inputs, _sentence(error)) from error
        outputs = [self._request.get_output_tensor(i).data for i in range(len(self._fixed))]
        # A view of a tensor whose shape changes would point into memory that was given back.
        return [
            output if fixed else output.copy()
            for output, fixed in zip(outputs, self._fixed, strict=True)
        ]

    def _set_inputs(self, inputs: Sequence[NDArray[Any]]) -> None:
        self._set = ()
        shared = [np.require(tensor, requirements=("C", "W")) for tensor in inputs]
        for index, tensor in enumerate(shared):
            self._request.set_input_tensor(index, self._ov.Tensor(tensor, shared_memory=True))
        self._lent = shared
        if all(map(is_, inputs, shared)):
            self._set = tuple(inputs)

    def placement(self) -> dict[str, int]:
        """How many nodes of the compiled graph work on the device."""
        nodes = self._compiled.get_runtime_model().get_ops()
        kinds = [node.get_rt_info()["layerType"].astype(str) for node in nodes]
        return {self._provider: sum(kind not in _NO_WORK for kind in kinds)}

    def close(self) -> None:
        """Drop the model; OpenVINO frees it with the last reference."""
        self._request = self._compiled = None
        self._set, self._lent = (), []


def _openvino() -> Any:
    """The package, without its conversion tool: that reports home when it is imported."""
    tool = "openvino.tools.ovc"
    blocked = tool not in sys.modules
    if blocked:
        sys.modules[tool] = None  # type: ignore[assignment] # how Python spells "not to be had"
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise does_not_load(NAME, str(error)) from error
    finally:
        if blocked:
            del sys.modules[tool]


@cache
def _core() -> Any:
    return _openvino().Core()


def _compile(
    ov: Any, model: Path, provider: str, settings: dict[str, str], folder: str
) -> tuple[Any, _Specs, _Specs]:
    """The compiled model with its inputs and outputs, as it was kept here before or made now."""
    kept = None
    if folder and provider == CPU:
        about = f"{provider} {sorted(settings.items())}"
        kept = Compiled(Path(folder), (NAME, version(NAME)), about)
        file = kept.find()
        if file is not None:
            try:
                return _import(file, provider, settings)
            except Exception as error:  # noqa: BLE001 -- whatever is wrong with it, the model itself is read
                log.warning("%s cannot be loaded: %s", file.name, _sentence(error))
    read = _read(ov, model)
    compiled = _core().compile_model(read, provider, settings)
    inputs, outputs = _specs(read.inputs, compiled.inputs), _specs(read.outputs, compiled.outputs)
    if kept is not None:
        try:
            kept.keep(lambda path: _export(path, compiled, (inputs, outputs)))
        except Exception as error:  # noqa: BLE001 -- a model that cannot be saved can still run
            log.info("the compiled model is not kept: %s", _sentence(error))
    return compiled, inputs, outputs


def _export(path: Path, compiled: Any, specs: tuple[_Specs, _Specs]) -> None:
    # The names that the file gave are no longer in what was compiled.
    head = msgspec.json.encode(specs)
    path.write_bytes(head + b"\n" + compiled.export_model().getvalue())


def _import(file: Path, provider: str, settings: dict[str, str]) -> tuple[Any, _Specs, _Specs]:
    head, _, body = file.read_bytes().partition(b"\n")
    inputs, outputs = msgspec.json.decode(head, type=tuple[_Specs, _Specs])
    return _core().import_model(io.BytesIO(body), provider, settings), inputs, outputs


def ir_of(model: Path, name: str) -> bytes:
    """An ONNX file as OpenVINO's IR of that name, bundled; the same bytes each time.

    Raises:
        ModelError: OpenVINO cannot read it.
        DeviceError: OpenVINO is not to be had here.
    """
    ov = _openvino()
    try:
        read = _read(ov, model)
    except Exception as error:
        raise ModelError(f"openvino cannot read {model.name}.", why=_sentence(error)) from error
    read.set_friendly_name(name)
    for index, node in enumerate(read.get_ordered_ops()):  # else numbered through the process
        if node.get_type_name() != "Parameter":
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "model.xml", Path(folder) / "model.bin"]
        ov.serialize(read, *map(str, files))
        return pack({file.name: file.read_bytes() for file in files})


def _read(ov: Any, model: Path) -> Any:
    if format_of(model) == OPENVINO_IR:
        if not zipfile.is_zipfile(model):
            return _core().read_model(str(model))
        files = unpack(model)
        weights = np.frombuffer(files["model.bin"], np.uint8)
        return _core().read_model(files["model.xml"], ov.Tensor(weights.copy()))
    # Asked for by name: trying every frontend on a broken file fills the log.
    frontend = ov.frontend.FrontEndManager().load_by_framework("onnx")
    if not frontend.supported(str(model)):
        raise RuntimeError("It is no ONNX model")
    return frontend.convert(frontend.load(str(model)))


def _specs(read: Sequence[Any], compiled: Sequence[Any]) -> _Specs:
    """Names as the file has them (compiling merges tensors and their names), shapes as compiled."""
    return tuple(_spec(_name(file), port) for file, port in zip(read, compiled, strict=True))


def _spec(name: str, port: Any) -> TensorSpec:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise ModelError(
            f"openvino cannot tell how many axes {name} has.",
            fix="Export the model with shapes; an axis may be symbolic.",
        )
    return TensorSpec(
        name=name,
        shape=tuple(
            f"axis{i}" if axis.is_dynamic else axis.get_length() for i, axis in enumerate(shape)
        ),
        dtype=_DTYPES.get(port.get_element_type().get_type_name(), "unknown"),
    )


def _name(port: Any) -> str:
    return str(port.get_any_name() if port.get_names() else port.get_node().get_friendly_name())


def _sentence(error: Exception) -> str:
    """The last line says what; those before it say where in OpenVINO's source."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1].rstrip('.!')}." if lines else f"{type(error).__name__}."
