"""Arm's Ethos-U as a runtime: files that Vela compiled, by the vendor's delegate or driver.

Vela leaves one custom operator, `ethos-u`, which holds the command stream; LiteRT by itself stops
at it. Two ways lead to the NPU, both through the kernel driver's device node (`/dev/ethosu0`): a
delegate, a shared library that boards bring with their system, resolves the operator in LiteRT;
or the driver is given the whole file, which the firmware beside the NPU runs
(`hardware.runtimes.ethosu_driver`). The delegate comes first where there is one.
"""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DeviceError, ModelError
from hardware.capabilities import RuntimeInfo
from hardware.runtimes import litert
from hardware.runtimes.ethosu_driver import Kernel, Network
from hardware.runtimes.formats import VELA
from hardware.runtimes.interface import Session, SessionOptions
from hardware.runtimes.refusal import fits, no_provider, refused

NAME = "ethosu"
OPERATOR = "ethos-u"
DELEGATE = "ethosu-delegate"
DRIVER = "ethosu-driver"

DELEGATE_VARIABLE = "EDGEML_ETHOSU_DELEGATE"
_LIBRARY = "libethosu_delegate.so"
_FOLDERS = ("usr/lib", "usr/lib64", "usr/lib/aarch64-linux-gnu", "usr/local/lib")
_NODES = "ethosu[0-9]*"
_ARENA_BYTES = 2 << 20  # what the firmware may have for a model's tensors


class EthosURuntime:
    """The runtime `ethosu`.

    Args:
        root: below which delegate and device node are looked for.
    """

    name = NAME
    formats: tuple[str, ...] = (VELA,)

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def info(self) -> RuntimeInfo | None:
        """LiteRT's version, where there is a device node; its ways to the NPU, the best first."""
        found = litert.LiteRtRuntime().info()
        if found is None or self._node() is None:
            return None
        providers = (DELEGATE, DRIVER) if self._delegate() else (DRIVER,)
        return RuntimeInfo(name=NAME, version=found.version, providers=providers)

    def missing(self) -> str:
        """What is not here of delegate and driver, as a sentence; empty where all is."""
        lacks = [] if self._delegate() else [f"delegate {_LIBRARY}"]
        lacks += [] if self._node() else ["device node /dev/ethosu0"]
        if not lacks:
            return ""
        return f"The custom operator {OPERATOR} is unresolved: here is no {' and no '.join(lacks)}."

    def load(self, model: Path, options: SessionOptions) -> Session:
        """Load a file of Vela's; see `Runtime.load`."""
        if options.provider not in {"", DELEGATE, DRIVER}:
            raise no_provider(NAME, options.provider, (DELEGATE, DRIVER))
        delegate, node = self._delegate(), self._node()
        wants_delegate = options.provider == DELEGATE or DELEGATE_VARIABLE in os.environ
        if node is None or (delegate is None and wants_delegate):
            raise DeviceError(
                f"ethosu cannot run {model.name} here.",
                why=self.missing(),
                fix=f"Install the board's Ethos-U driver and delegate, or set {DELEGATE_VARIABLE}.",
            )
        if delegate is None or options.provider == DRIVER:
            return DriverSession(model, node)
        return EthosUSession(model, options, delegate, f"/dev/{node.name}")

    def _delegate(self) -> Path | None:
        if chosen := os.environ.get(DELEGATE_VARIABLE):
            return Path(chosen) if Path(chosen).is_file() else None
        places = (self._root / folder / _LIBRARY for folder in _FOLDERS)
        return next((place for place in places if place.is_file()), None)

    def _node(self) -> Path | None:
        return min((self._root / "dev").glob(_NODES), default=None)


class EthosUSession:
    """A file of Vela's on the NPU, through LiteRT."""

    def __init__(self, model: Path, options: SessionOptions, delegate: Path, node: str) -> None:
        def load_delegate(package: Any) -> list[Any]:
            try:
                ctypes.CDLL(str(delegate))  # what fails inside LiteRT leaves half an object
                return [package.load_delegate(str(delegate), {"device_name": node})]
            except (OSError, ValueError) as error:
                raise DeviceError(
                    f"The delegate {delegate.name} does not load.",
                    why=f"{error}.",
                    fix="Install the delegate of this board's system and this processor.",
                ) from error

        # An operator that the delegate does not take stays unresolved: LiteRT stops at it.
        plain = SessionOptions(threads=options.threads, provider=litert.BUILTIN)
        self._session = litert.LiteRtSession(model, plain, delegates=load_delegate)
        self.inputs, self.outputs = self._session.inputs, self._session.outputs

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference; see `Session.run`."""
        return self._session.run(inputs)

    def placement(self) -> dict[str, int]:
        """How many operators LiteRT's own kernels run, and the NPU's command streams."""
        found = self._session.placement()
        return {DELEGATE if name == litert.XNNPACK else name: n for name, n in found.items()}

    def close(self) -> None:
        """Drop the model."""
        self._session.close()


class DriverSession:
    """A file of Vela's on the NPU, through the kernel's driver alone.

    Args:
        model: the file.
        node: the driver's device node.
        kernel: the system; the real one by default.
    """

    def __init__(self, model: Path, node: Path, kernel: Kernel | None = None) -> None:
        self.inputs, self.outputs = litert.specs_of(model)
        self._network = Network(node, model.read_bytes(), _ARENA_BYTES, kernel=kernel)

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference; see `Session.run`."""
        if not fits(self.inputs, inputs):
            raise refused(self.inputs, inputs, "")
        answers = self._network.run([np.ascontiguousarray(tensor).tobytes() for tensor in inputs])
        try:
            return [
                np.frombuffer(data, spec.dtype).reshape(spec.shape)  # type: ignore[arg-type] # its axes are fixed
                for data, spec in zip(answers, self.outputs, strict=True)
            ]
        except ValueError as error:
            raise ModelError("The NPU's outputs are not the file's.", why=f"{error}.") from error

    def placement(self) -> dict[str, int]:
        """One model; the driver does not tell its operators."""
        return {DRIVER: 1}

    def close(self) -> None:
        """Give the NPU's memory back."""
        self._network.close()
