"""The one interface between edgeml and whatever executes a variant.

A `Runtime` says whether and in which version it is installed, and loads a model file into a
`Session`; a session runs tensors and says where its nodes were placed. Third parties add
runtimes by the entry point group `edgeml.runtimes`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import UserError
from hardware.capabilities import RuntimeInfo

Tensor = NDArray[np.generic]


MAX_THREADS = 1024


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """How integers stand for real numbers: `real = scale * (integer - zero_point)`."""

    scale: float
    zero_point: int


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A model's input or output: numpy dtype name, and axes as a number or a symbol.

    `quantization` is what the file says of an integer tensor that stands for real numbers;
    a session takes and gives the integers.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    quantization: Quantization | None = None

    def accepts(self, tensor: NDArray[Any]) -> bool:
        """Whether a tensor has this dtype, in this machine's byte order, and fits this shape."""
        return (
            tensor.dtype.name == self.dtype
            and tensor.dtype.isnative
            and len(tensor.shape) == len(self.shape)
            and all(
                isinstance(want, str) or want == have
                for want, have in zip(self.shape, tensor.shape, strict=True)
            )
        )

    def tensor(self, sample: Any) -> Tensor:
        """A sample as this input takes it: of its type, with a batch axis where it lacks one."""
        array = np.asarray(sample, self.dtype, order="C")
        return array[None] if array.ndim == len(self.shape) - 1 else array

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to run: threads of one inference, the provider asked for, and whether to spin.

    Spinning threads answer a little sooner and hold a core while they wait; off by default.
    `compiled` is a folder of this very model, for what the runtime makes of it on this machine:
    where there is one, it is loaded in its place, and answers the same bits. It must be the
    owner's alone, since what is in it is run. Empty keeps nothing.

    Raises:
        UserError: the number of threads is none that an inference can have.
    """

    threads: int = 1
    provider: str = ""
    spin: bool = False
    compiled: str = ""

    def __post_init__(self) -> None:
        if type(self.threads) is not int or not 1 <= self.threads <= MAX_THREADS:
            raise UserError(
                f"An inference cannot have {self.threads!r} threads.",
                fix=f"Give a whole number from 1 to {MAX_THREADS}.",
            )


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


@runtime_checkable
class StreamingSession(Session, Protocol):
    """A session that takes the next input while one is computed."""

    def stream(self, samples: Iterable[Sequence[NDArray[Any]]]) -> Iterator[list[NDArray[Any]]]:
        """Run inferences one after the other; a sample is taken before the last answer is given."""
        ...


def answers(
    session: Session, samples: Iterable[Sequence[NDArray[Any]]]
) -> Iterator[list[NDArray[Any]]]:
    """The outputs of every sample's tensors, which may be valid only until the next.

    A session that can takes a sample while it computes the one before. It is asked for nothing else
    until the last answer is there.
    """
    if isinstance(session, StreamingSession):
        return session.stream(samples)
    return map(session.run, samples)


class Runtime(Protocol):
    """Something that can execute variants; `formats` are of the files that it loads."""

    name: str
    formats: tuple[str, ...]

    def info(self) -> RuntimeInfo | None:
        """The installed version and its providers; None where it is not installed.

        A device lists every runtime, so this should not import more than it must.
        """
        ...

    def load(self, model: Path, options: SessionOptions) -> Session:
        """Load a model file.

        Raises:
            ModelError: the file is no model that this runtime can run.
            DeviceError: the runtime does not load here, or the provider asked for is not there.
        """
        ...
