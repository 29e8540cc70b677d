"""Runs one artifact in a process of its own, told by messages on its standard input.

Candidates must not disturb one another (a session's idle thread pool falsifies the others'
times, a runtime that crashes must not take the conversion with it), and some run under an
emulator or on another machine. So each is loaded by `python -m converters.worker`, which
speaks MessagePack with a length before each message and imports no more than it needs.
"""

import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import EdgemlError
from hardware.capabilities import RuntimeInfo
from hardware.runtimes import SessionOptions, open_session, runtimes
from hardware.runtimes.interface import Session, TensorSpec

_LENGTH = struct.Struct("<I")


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """An array as it crosses the pipe."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load the model at `path`, or the one in `data`, on a runtime."""

    runtime: str
    path: str = ""
    data: bytes = b""
    suffix: str = ".onnx"
    threads: int = 1
    provider: str = ""


class Run(msgspec.Struct, frozen=True, tag=True):
    """Run an inference of each of these inputs."""

    feeds: tuple[tuple[Tensor, ...], ...]


class Keep(msgspec.Struct, frozen=True, tag=True):
    """Keep these inputs, to be timed with."""

    feeds: tuple[tuple[Tensor, ...], ...]


class Time(msgspec.Struct, frozen=True, tag=True):
    """Run one of the kept inputs some times and say how long each run took."""

    feed: int
    runs: int


class Drop(msgspec.Struct, frozen=True, tag=True):
    """Let go of the model, if there is one, and of what was kept."""


Request = Load | Run | Keep | Time | Drop


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """What was loaded, by which version, and in how many milliseconds."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    info: RuntimeInfo
    placement: dict[str, int]
    load_ms: float


class Done(msgspec.Struct, frozen=True, tag=True):
    """Outputs of each run, times in milliseconds, and the process's peak memory in bytes so far."""

    outputs: tuple[tuple[Tensor, ...], ...] = ()
    milliseconds: tuple[float, ...] = ()
    memory_bytes: int = 0


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The runtime could not do it."""

    what: str
    why: str = ""


Reply = Loaded | Done | Refused


class Worker:
    """What a worker process does, a request at a time."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._feeds: list[list[NDArray[Any]]] = []

    def answer(self, request: Request) -> Reply:
        """Carry out a request; what goes wrong with the model is an answer, too."""
        try:
            match request:
                case Load():
                    return self._load(request)
                case Run(feeds):
                    return Done(outputs=tuple(self._run(feed) for feed in feeds))
                case Keep(feeds):
                    # Arrays of its own, as a pipeline has: what is read-only is copied each run.
                    self._feeds = [[unpack(tensor).copy() for tensor in feed] for feed in feeds]
                    return Done()
                case Drop():
                    self._drop()
                    return Done()
                case Time(feed, runs):
                    return self._time(self._feeds[feed], runs)
        except EdgemlError as error:
            return Refused(error.what, error.why)
        except MemoryError:
            return Refused("The model does not fit into memory.")

    @property
    def _open(self) -> Session:
        assert self._session is not None, "a model is loaded before it is run"
        return self._session

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session, self._feeds = None, []

    def _load(self, request: Load) -> Loaded:
        self._drop()
        options = SessionOptions(threads=request.threads, provider=request.provider)
        with _file_of(request) as path:
            begun = time.perf_counter()
            session = self._session = open_session(request.runtime, path, options)
            taken = 1000 * (time.perf_counter() - begun)
        info = runtimes()[request.runtime].info()
        assert info is not None, "it has just loaded a model"
        return Loaded(
            inputs=session.inputs,
            outputs=session.outputs,
            info=info,
            placement=session.placement(),
            load_ms=taken,
        )

    def _run(self, feed: Sequence[Tensor]) -> tuple[Tensor, ...]:
        outputs = self._open.run([unpack(tensor) for tensor in feed])
        return tuple(pack(np.asarray(output)) for output in outputs)

    def _time(self, feed: list[NDArray[Any]], runs: int) -> Done:
        taken = []
        for _ in range(runs):
            begun = time.perf_counter()
            self._open.run(feed)
            taken.append(1000 * (time.perf_counter() - begun))
        return Done(milliseconds=tuple(taken), memory_bytes=_peak_memory())


@contextmanager
def _file_of(request: Load) -> Iterator[Path]:
    """The model's file; one that was sent is gone as soon as it is loaded."""
    if not request.data:
        yield Path(request.path)
        return
    with tempfile.TemporaryDirectory(prefix="edgeml-") as folder:
        path = Path(folder) / f"model{request.suffix}"
        path.write_bytes(request.data)
        yield path


def pack(array: NDArray[Any]) -> Tensor:
    """An array as a message."""
    return Tensor(array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())


def unpack(tensor: Tensor) -> NDArray[Any]:
    """A message as a read-only array."""
    return np.frombuffer(tensor.data, np.dtype(tensor.dtype)).reshape(tensor.shape)


def write_message(stream: IO[bytes], message: Request | Reply) -> None:
    """Write a message and its length."""
    data = msgspec.msgpack.encode(message)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_message(stream: IO[bytes]) -> bytes | None:
    """Read a message; None at the end of the stream, or where it breaks off."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    return data if len(data) == length else None


def _peak_memory() -> int:
    # not getrusage: its maximum is inherited through fork and exec, and so is the parent's
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _serve(read: IO[bytes], write: IO[bytes]) -> None:
    worker = Worker()
    decode: Callable[[bytes], Request] = msgspec.msgpack.Decoder(Request).decode
    while (data := read_message(read)) is not None:
        write_message(write, worker.answer(decode(data)))


if __name__ == "__main__":
    # Runtimes print to standard output; only messages may go where messages are read.
    messages = sys.stdout.buffer
    sys.stdout = sys.stderr
    _serve(sys.stdin.buffer, messages)
