"""Where artifacts are executed: a process each on this machine, or what else is an `Executor`.

`open_remote` opens an artifact and returns a `RemoteSession`, which is a `Session` like any
other, and can time itself where it runs. `LocalExecutor` starts `python -m converters.worker`,
with an emulator's command before it where the artifact is for another instruction set;
`converters.cluster` has the executor of a Ray cluster.
"""

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from converters.worker import (
    Done,
    Drop,
    Keep,
    Load,
    Loaded,
    Refused,
    Reply,
    Request,
    Run,
    Tensor,
    Time,
    pack,
    read_message,
    unpack,
    write_message,
)
from edgeml.errors import ModelError
from hardware.capabilities import RuntimeInfo
from hardware.runtimes.interface import TensorSpec

_ENDING_S = 5.0


class Channel(Protocol):
    """The way to one worker."""

    def ask(self, request: Request) -> Reply:
        """Send a request and wait for its reply.

        Raises:
            ModelError: the worker is gone.
        """
        ...

    def close(self) -> None:
        """End the worker."""
        ...


class Executor(Protocol):
    """A place where artifacts run.

    Attributes:
        name: of the executor.
        copies: that it has no part in this file system.
        slots: how many workers may evaluate at once.
        ahead: how many workers are started before they are asked for.
        remarks: what a person should know about it.
    """

    name: str
    copies: bool
    slots: int
    ahead: int
    remarks: tuple[str, ...]

    def start(self, slot: int = 0) -> Channel:
        """Start a worker; those of one slot share a machine, on which they may race."""
        ...

    def close(self) -> None:
        """Give back what was taken."""
        ...


class RemoteSession:
    """A model loaded by a worker; a `Session` whose runs happen elsewhere."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self, channel: Channel, loaded: Loaded) -> None:
        self._channel = channel
        self._loaded = loaded
        self.inputs = loaded.inputs
        self.outputs = loaded.outputs
        self.memory_bytes = 0

    @property
    def info(self) -> RuntimeInfo:
        """The runtime with its exact version."""
        return self._loaded.info

    @property
    def load_ms(self) -> float:
        """How long the runtime took to load the model."""
        return self._loaded.load_ms

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one inference; the outputs are the caller's.

        Raises:
            ModelError: the runtime refused, or its process died.
        """
        (outputs,) = self.run_each([inputs])
        return outputs

    def run_each(self, feeds: Sequence[Sequence[NDArray[Any]]]) -> list[list[NDArray[Any]]]:
        """Run an inference of each of some inputs; see `run`."""
        done = self._ask(Run(_packed(feeds)))
        return [[unpack(tensor) for tensor in outputs] for outputs in done.outputs]

    def keep(self, feeds: Sequence[Sequence[NDArray[Any]]]) -> None:
        """Send inputs ahead, to be timed with."""
        self._ask(Keep(_packed(feeds)))

    def time(self, feed: int, runs: int) -> tuple[float, ...]:
        """Milliseconds of each of some runs of a kept input, measured by the worker."""
        done = self._ask(Time(feed, runs))
        self.memory_bytes = done.memory_bytes
        return done.milliseconds

    def placement(self) -> dict[str, int]:
        """See `Session.placement`."""
        return self._loaded.placement

    def release(self) -> Channel:
        """Drop the model; the worker is free for another one."""
        self._ask(Drop())
        return self._channel

    def close(self) -> None:
        """End the worker."""
        self._channel.close()

    def _ask(self, request: Request) -> Done:
        reply = self._channel.ask(request)
        if isinstance(reply, Refused):
            raise ModelError(reply.what, why=reply.why)
        assert isinstance(reply, Done)
        return reply


def _packed(feeds: Sequence[Sequence[NDArray[Any]]]) -> tuple[tuple[Tensor, ...], ...]:
    return tuple(tuple(pack(np.asarray(tensor)) for tensor in feed) for feed in feeds)


def open_remote(
    executor: Executor,
    runtime: str,
    model: Path,
    *,
    threads: int = 1,
    slot: int = 0,
    provider: str = "",
) -> RemoteSession:
    """Load a model in a worker of its own, for a provider of the runtime's.

    Raises:
        ModelError: the runtime cannot load it, or dies of it.
    """
    channel = executor.start(slot)
    copies = executor.copies
    return load(channel, runtime, model, threads=threads, copies=copies, provider=provider)


def load(
    channel: Channel,
    runtime: str,
    model: Path,
    *,
    threads: int = 1,
    copies: bool = False,
    provider: str = "",
) -> RemoteSession:
    """Load a model in a worker, in place of what it had loaded; one that fails is ended.

    Raises:
        ModelError: the runtime cannot load it, or dies of it.
    """
    try:
        wanted = Load(
            runtime=runtime,
            path="" if copies else str(model.resolve()),
            data=model.read_bytes() if copies else b"",
            suffix=model.suffix,
            threads=threads,
            provider=provider,
        )
        reply = channel.ask(wanted)
        if isinstance(reply, Refused):
            raise ModelError(reply.what, why=reply.why)
        assert isinstance(reply, Loaded)
        return RemoteSession(channel, reply)
    except BaseException:
        channel.close()
        raise


class LocalExecutor:
    """Processes of this machine; `command` stands before `-m converters.worker`."""

    copies = False
    slots = 1  # more would take memory, and disturb what is timed beside
    remarks: tuple[str, ...] = ()

    def __init__(self, command: Sequence[str] = (), *, name: str = "local") -> None:
        self.name = name
        self.ahead = 0 if command else 2  # an emulated one takes seconds of this machine
        self._command = [*(command or [sys.executable]), "-m", "converters.worker"]

    def start(self, slot: int = 0) -> Channel:  # noqa: ARG002 -- there is one
        """Start a process."""
        return _ProcessChannel(self._command)

    def close(self) -> None:
        """Nothing is shared between the processes."""


class _ProcessChannel:
    def __init__(self, command: Sequence[str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 -- open as long as the worker
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C is the converter's to handle
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._to: IO[bytes] = self._child.stdin
        self._from: IO[bytes] = self._child.stdout

    def ask(self, request: Request) -> Reply:
        try:
            write_message(self._to, request)
            data = read_message(self._from)
        except BrokenPipeError:
            data = None
        if data is None:
            raise ModelError("The runtime died in a process of its own.", why=self._epitaph())
        reply: Reply = msgspec.msgpack.decode(data, type=Reply)
        return reply

    def close(self) -> None:
        self._child.kill()  # it holds nothing that it would have to save
        self._child.wait()
        for pipe in (self._to, self._from):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._stderr.close()

    def _epitaph(self) -> str:
        status = self._child.wait(_ENDING_S)
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"It ended with {how}{': ' + lines[-1] if lines else ''}."
