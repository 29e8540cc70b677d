"""The one interface between edgeml and whatever executes a variant.

A `Runtime` says whether and in which version it is installed, and loads a model file into a
`Session`; a session runs tensors and says where its nodes were placed. Third parties add
runtimes by the entry point group `edgeml.runtimes`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from hardware.capabilities import RuntimeInfo

Tensor = NDArray[np.generic]


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A model's input or output: numpy dtype name, and axes as a number or a symbol."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def accepts(self, tensor: NDArray[Any]) -> bool:
        """Whether a tensor has this dtype and fits this shape."""
        return (
            tensor.dtype.name == self.dtype
            and len(tensor.shape) == len(self.shape)
            and all(
                isinstance(want, str) or want == have
                for want, have in zip(self.shape, tensor.shape, strict=True)
            )
        )

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to run: threads of one inference, the provider asked for, and whether to spin.

    Spinning threads answer a little sooner and hold a core while they wait; off by default.
    """

    threads: int = 1
    provider: str = ""
    spin: bool = False


class Session(Protocol):
    """A loaded model. Not thread-safe: one caller at a time."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference; outputs may be valid only until the next."""
        ...

    def placement(self) -> dict[str, int]:
        """How many nodes of the optimised graph each provider runs."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


class Runtime(Protocol):
    """Something that can execute variants."""

    name: str

    def info(self) -> RuntimeInfo | None:
        """The installed version and its providers; None where it is not installed."""
        ...

    def load(self, model: Path, options: SessionOptions) -> Session:
        """Load a model file.

        Raises:
            ModelError: the file is no model that this runtime can run.
            DeviceError: the provider asked for is not there.
        """
        ...
