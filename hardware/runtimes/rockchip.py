"""Rockchip's NPU as a runtime: files of rknn-toolkit2, run by rknn-toolkit-lite2.

The Python package calls the board's `librknnrt.so`, whose version decides which files load: an
older one refuses a newer file ("invalid model version"). An RKNN file does not tell Python what
its tensors are, so that a variant is a bundle of it and of `tensors.json`.
"""

import importlib
import re
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DeviceError, ModelError
from hardware.capabilities import RuntimeInfo
from hardware.runtimes.bundle import unpack
from hardware.runtimes.formats import RKNN, format_of
from hardware.runtimes.interface import Session, SessionOptions, TensorSpec
from hardware.runtimes.refusal import does_not_load, fits, no_provider, refused

NAME = "rknn"
PACKAGE = "rknn-toolkit-lite2"
PROVIDER = "rknpu"
MODEL = "model.rknn"
TENSORS = "tensors.json"

_LIBRARIES = ("usr/lib/librknnrt.so", "usr/lib/aarch64-linux-gnu/librknnrt.so")
_VERSION = re.compile(rb"librknnrt version: (\d{1,4}(?:\.\d{1,4}){1,3})")
_PICTURE_AXES = 4


class Tensors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class RockchipRuntime:
    """The runtime `rknn`; its version is that of `librknnrt.so`.

    Args:
        root: below which the library is looked for.
    """

    name = NAME
    formats: tuple[str, ...] = (RKNN,)

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def info(self) -> RuntimeInfo | None:
        """The board's library, where the Python package is installed as well."""
        library = self._library_version()
        if not library or not _package():
            return None
        return RuntimeInfo(name=NAME, version=library, providers=(PROVIDER,))

    def missing(self) -> str:
        """What is not here of package and library, as a sentence; empty where both are."""
        lacks = [] if _package() else [f"the package {PACKAGE}"]
        lacks += [] if self._library_version() else ["librknnrt.so that tells its version"]
        return f"There is no {' and no '.join(lacks)}." if lacks else ""

    def load(self, model: Path, options: SessionOptions) -> Session:
        """Load a bundle with an RKNN file; see `Runtime.load`."""
        return RockchipSession(model, options)

    def _library_version(self) -> str:
        for name in _LIBRARIES:
            try:
                found = _VERSION.search((self._root / name).read_bytes())
            except OSError:
                continue
            if found:
                return found[1].decode("ascii")
        return ""


class RockchipSession:
    """A model on Rockchip's NPU; which of its cores is the driver's choice."""

    def __init__(self, model: Path, options: SessionOptions) -> None:
        if options.provider not in {"", PROVIDER}:
            raise no_provider(NAME, options.provider, (PROVIDER,))
        if format_of(model) != RKNN:
            raise ModelError(
                f"rknn cannot run {model.name}.",
                why="It is no bundle of an RKNN file.",
                fix="Convert it for the board's chip: edgeml convert --target npu-rockchip-rk3588.",
            )
        content, tensors = _read(model)
        self.inputs, self.outputs = tensors.inputs, tensors.outputs
        try:
            package = importlib.import_module("rknnlite.api")
        except ImportError as error:
            raise does_not_load(NAME, str(error)) from error
        self._rknn: Any = package.RKNNLite()
        try:
            self._open(model.name, content, package.RKNNLite.NPU_CORE_AUTO)
        except BaseException:
            self._rknn.release()
            raise

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference.

        Raises:
            ModelError: the tensors do not fit the model's inputs, or it failed on them.
        """
        if not fits(self.inputs, inputs):
            raise refused(self.inputs, inputs, "")
        formats = ["nchw" if tensor.ndim == _PICTURE_AXES else None for tensor in inputs]
        try:
            outputs = self._rknn.inference(inputs=list(inputs), data_format=formats)
        except Exception as error:  # the package raises whatever its library does
            raise refused(self.inputs, inputs, f"{error}.") from error
        if outputs is None or len(outputs) != len(self.outputs):
            raise refused(
                self.inputs, inputs, "The NPU gave no outputs; the kernel's log says why."
            )
        try:
            return [
                np.asarray(output).reshape(spec.shape)  # type: ignore[arg-type] # its axes are fixed
                for output, spec in zip(outputs, self.outputs, strict=True)
            ]
        except (TypeError, ValueError) as error:
            why = f"The NPU's outputs are not what {TENSORS} says: {error}."
            raise refused(self.inputs, inputs, why) from error

    def placement(self) -> dict[str, int]:
        """One model; the library does not tell its operators."""
        return {PROVIDER: 1}

    def close(self) -> None:
        """Give the NPU's memory back."""
        if self._rknn is not None:
            self._rknn.release()
        self._rknn = None

    def _open(self, name: str, content: bytes, core: int) -> None:
        with tempfile.NamedTemporaryFile(suffix=".rknn") as file:  # the package takes a path
            file.write(content)
            file.flush()
            if self._rknn.load_rknn(file.name) != 0:
                raise ModelError(
                    f"rknn cannot load {name}.",
                    why="The library refused the file.",
                    fix="Use a librknnrt.so no older than the toolkit that made the file.",
                )
            if self._rknn.init_runtime(core_mask=core) != 0:
                raise DeviceError(
                    "The NPU does not start.",
                    why=f"{name} is for another chip, or the driver is old.",
                    fix="Compile for this board's chip; check the version of the driver rknpu.",
                )


def _read(model: Path) -> tuple[bytes, Tensors]:
    files = unpack(model)
    try:
        return files[MODEL], msgspec.json.decode(files[TENSORS], type=Tensors)
    except (KeyError, msgspec.DecodeError) as error:
        raise ModelError(
            f"rknn cannot load {model.name}.",
            why=f"Its bundle is not right: {error}.",
            fix="Fetch the release again, or convert the model again.",
        ) from error


def _package() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""
