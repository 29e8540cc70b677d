"""LiteRT (TensorFlow Lite) as a runtime, with XNNPACK's kernels.

`ai-edge-litert` is taken, or `tflite-runtime` where only that is installed.
"""

import importlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import EdgemlError, ModelError
from hardware.capabilities import RuntimeInfo
from hardware.runtimes.formats import TFLITE
from hardware.runtimes.interface import Quantization, Session, SessionOptions, TensorSpec
from hardware.runtimes.refusal import does_not_load, fits, no_provider, refused, require_in_use

NAME = "litert"
XNNPACK = "XNNPACK"
BUILTIN = "builtin"
REFERENCE = "reference"

_PACKAGES = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
_DELEGATE = "DELEGATE"


class LiteRtRuntime:
    """The runtime `litert`; its version names the package where it is not `ai-edge-litert`."""

    name = NAME
    formats: tuple[str, ...] = (TFLITE,)

    def info(self) -> RuntimeInfo | None:
        """The installed LiteRT, read without importing it."""
        package = _package()
        if not package:
            return None
        # The two packages number independently; what ran must stay tellable.
        other = "" if package == "ai-edge-litert" else f"+{package.replace('-', '.')}"
        return RuntimeInfo(
            name=self.name, version=f"{version(package)}{other}", providers=(XNNPACK, BUILTIN)
        )

    def load(self, model: Path, options: SessionOptions) -> Session:
        """Load a TFLite file; see `Runtime.load`."""
        return LiteRtSession(model, options)


class LiteRtSession:
    """A model in LiteRT. Outputs are fresh arrays; state does not outlive an inference.

    The provider `builtin` runs without XNNPACK, `reference` on the kernels that say what each
    operator means, slow and the same bits everywhere. Integer inputs and outputs are taken and
    given as the file has them. `delegates` makes external ones, of the package.
    """

    def __init__(
        self,
        model: Path,
        options: SessionOptions,
        delegates: Callable[[Any], list[Any]] | None = None,
    ) -> None:
        if options.provider not in {"", XNNPACK, BUILTIN, REFERENCE}:
            raise no_provider(NAME, options.provider, (XNNPACK, BUILTIN, REFERENCE))
        litert = _litert()
        kernels = litert.OpResolverType
        resolver = {
            BUILTIN: kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            REFERENCE: kernels.BUILTIN_REF,
        }.get(options.provider, kernels.AUTO)
        try:
            self._interpreter: Any = litert.Interpreter(
                model_path=str(model),
                num_threads=options.threads,
                experimental_op_resolver_type=resolver,
                experimental_delegates=delegates(litert) if delegates else None,
            )
            self._interpreter.allocate_tensors()
            inputs = self._interpreter.get_input_details()
            outputs = self._interpreter.get_output_details()
        except EdgemlError:
            raise
        except SystemError as error:  # how tflite-runtime fails on numpy 2
            raise does_not_load(NAME, f"{_package()} is built for another numpy") from error
        except Exception as error:
            raise ModelError(
                f"litert cannot load {model.name}.",
                why=_sentence(error),
                fix="Check that the file is a complete TFLite model of operators it has.",
            ) from error
        self._kernels = REFERENCE if options.provider == REFERENCE else BUILTIN
        if options.provider and delegates is None and (used := self.placement()):
            require_in_use(NAME, options.provider, list(used))
        self.inputs = tuple(_spec(details) for details in inputs)
        self.outputs = tuple(_spec(details) for details in outputs)
        self._input_indices = [details["index"] for details in inputs]
        self._output_indices = [details["index"] for details in outputs]
        self._shapes = [tuple(details["shape"].tolist()) for details in inputs]

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference, from cleared state.

        Raises:
            ModelError: the tensors do not fit the model's inputs, or it failed on them.
        """
        if not fits(self.inputs, inputs):
            raise refused(self.inputs, inputs, "")
        try:
            self._resize([tensor.shape for tensor in inputs])
            self._interpreter.reset_all_variables()
            for index, tensor in zip(self._input_indices, inputs, strict=True):
                self._interpreter.set_tensor(index, tensor)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._output_indices]
        except (RuntimeError, ValueError) as error:
            raise refused(self.inputs, inputs, _sentence(error)) from error

    def placement(self) -> dict[str, int]:
        """How many operators XNNPACK runs, and how many LiteRT's own kernels.

        Empty where it does not tell: this package's way is not public, and needs tensors
        whose names are UTF-8.
        """
        try:
            operators = self._interpreter._get_ops_details()  # noqa: SLF001 -- see above
        except (AttributeError, UnicodeDecodeError):
            return {}
        total = sum(operator["op_name"] != _DELEGATE for operator in operators)
        delegated = len(_delegated(operators))
        counts = {XNNPACK: delegated, self._kernels: total - delegated}
        return {provider: count for provider, count in counts.items() if count}

    def close(self) -> None:
        """Drop the model; LiteRT frees it with the last reference."""
        self._interpreter = None

    def _resize(self, shapes: Sequence[tuple[int, ...]]) -> None:
        if list(shapes) == self._shapes:
            return
        self._shapes = []  # not known until all is allocated anew
        for index, shape in zip(self._input_indices, shapes, strict=True):
            self._interpreter.resize_tensor_input(index, shape, strict=True)
        self._interpreter.allocate_tensors()
        self._shapes = list(shapes)


def specs_of(model: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of a TFLite file, whose operators need not be LiteRT's.

    Raises:
        DeviceError: LiteRT is not to be had here.
        ModelError: it is no TFLite file.
    """
    litert = _litert()
    try:
        read = litert.Interpreter(model_path=str(model))
        sides = read.get_input_details(), read.get_output_details()
    except Exception as error:
        raise ModelError(f"litert cannot read {model.name}.", why=_sentence(error)) from error
    inputs, outputs = (tuple(_spec(details) for details in side) for side in sides)
    return inputs, outputs


def _package() -> str:
    for package in _PACKAGES:
        try:
            version(package)
        except PackageNotFoundError:
            continue
        return package
    return ""


def _litert() -> Any:
    try:
        return importlib.import_module(_PACKAGES[_package() or "ai-edge-litert"])
    except ImportError as error:
        raise does_not_load(NAME, str(error)) from error


def _delegated(operators: Sequence[dict[str, Any]]) -> set[int]:
    """Indices of the operators that delegates took over: what lies between their ends."""
    own = [operator for operator in operators if operator["op_name"] != _DELEGATE]
    maker = {tensor: operator for operator in own for tensor in operator["outputs"].tolist()}
    found: set[int] = set()
    for delegate in operators:
        if delegate["op_name"] != _DELEGATE:
            continue
        given = set(delegate["inputs"].tolist())
        wanted = [t for t in delegate["outputs"].tolist() if t not in given]
        while wanted:
            operator = maker.get(wanted.pop())
            if operator is not None and operator["index"] not in found:
                found.add(operator["index"])
                wanted += [t for t in operator["inputs"].tolist() if t not in given]
    return found


def _spec(details: dict[str, Any]) -> TensorSpec:
    axes = details["shape_signature"].tolist() or details["shape"].tolist()
    scale, zero_point = details["quantization"]
    return TensorSpec(
        name=details["name"],
        shape=tuple(f"axis{i}" if axis < 0 else axis for i, axis in enumerate(axes)),
        dtype=np.dtype(details["dtype"]).name,
        quantization=Quantization(scale=scale, zero_point=zero_point) if scale else None,
    )


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0].rstrip('.')}."
