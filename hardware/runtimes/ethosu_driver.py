"""The Linux kernel's driver of an Ethos-U, by its device node: buffers, a network, an inference.

The interface is NXP's for the i.MX 93 (`drivers/firmware/imx/ethosu/uapi/ethosu.h`, driver stack of
LF 6.1 and later, firmware on the Cortex-M33): a whole file of Vela's is put into a buffer, the
firmware says what it takes and gives (`NETWORK_INFO`), and runs it on an arena that holds inputs,
outputs and all between. A request's number holds its structure's size, so that a driver of another
version refuses it by ENOTTY instead of reading it wrongly. No such board was at hand: this is
tested against a fake of that interface.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import select
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from edgeml.errors import DeviceError, ModelError

MAX_TENSORS = 16
MAX_AXES = 8
EVENTS = 4
NETWORK_IN_BUFFER = 1
INFERENCE_OF_MODEL = 0
_READ = 2
_BASE = 0x01
_STATUS = ("ok", "error", "running", "rejected", "aborted", "aborting")

_Each = ctypes.c_uint32 * MAX_TENSORS
_Shapes = (ctypes.c_uint32 * MAX_AXES) * MAX_TENSORS


class BufferCreate(ctypes.Structure):
    """A buffer of `capacity` bytes."""

    _fields_ = (("capacity", ctypes.c_uint32),)


class BufferRange(ctypes.Structure):
    """Where in a buffer the data are."""

    _fields_ = (("offset", ctypes.c_uint32), ("size", ctypes.c_uint32))


class NetworkCreate(ctypes.Structure):
    """A network; of the kind 1 it is a file in the buffer `descriptor`."""

    _fields_ = (("kind", ctypes.c_uint32), ("descriptor", ctypes.c_uint32))


class NetworkInfo(ctypes.Structure):
    """What the firmware says of a network: of each tensor bytes, type, place in the arena, axes."""

    _fields_ = (
        ("description", ctypes.c_char * 32),
        ("is_vela", ctypes.c_uint32),
        *(
            field
            for side in ("input", "output")
            for field in (
                (f"{side}_count", ctypes.c_uint32),
                (f"{side}_bytes", _Each),
                (f"{side}_types", _Each),
                (f"{side}_offsets", _Each),
                (f"{side}_axes", _Each),
                (f"{side}_shapes", _Shapes),
            )
        ),
    )


class Layout(ctypes.Structure):
    """Where in the arena the inputs and outputs are."""

    _fields_ = (
        ("flash_offset", ctypes.c_uint32),
        ("arena_offset", ctypes.c_uint32),
        ("input_count", ctypes.c_uint32),
        ("input_offsets", _Each),
        ("input_bytes", _Each),
        ("output_count", ctypes.c_uint32),
        ("output_offsets", _Each),
        ("output_bytes", _Each),
    )


class Counting(ctypes.Structure):
    """What the performance counters count."""

    _fields_ = (("events", ctypes.c_uint32 * EVENTS), ("cycles", ctypes.c_uint32))


class Counts(ctypes.Structure):
    """What they counted."""

    _fields_ = (("events", ctypes.c_uint32 * EVENTS), ("cycles", ctypes.c_uint64))


class InferenceCreate(ctypes.Structure):
    """An inference; the first input buffer is the arena."""

    _fields_ = (
        ("input_count", ctypes.c_uint32),
        ("inputs", _Each),
        ("output_count", ctypes.c_uint32),
        ("outputs", _Each),
        ("layout", Layout),
        ("kind", ctypes.c_uint32),
        ("counting", Counting),
    )


class InferenceStatus(ctypes.Structure):
    """How far an inference is."""

    _fields_ = (("status", ctypes.c_uint32), ("counting", Counting), ("counts", Counts))


def _request(number: int, structure: type[ctypes.Structure] | None = None) -> int:
    """The number of an ioctl as Linux makes it: direction, size, kind, number."""
    size = ctypes.sizeof(structure) if structure else 0
    return (_READ if structure else 0) << 30 | size << 16 | _BASE << 8 | number


PING = _request(0x00)
BUFFER_CREATE = _request(0x10, BufferCreate)
BUFFER_SET = _request(0x11, BufferRange)
NETWORK_CREATE = _request(0x20, NetworkCreate)
NETWORK_INFO = _request(0x21, NetworkInfo)
INFERENCE_CREATE = _request(0x30, InferenceCreate)
INFERENCE_STATUS = _request(0x31, InferenceStatus)
INFERENCE_INVOKE = _request(0x33, InferenceStatus)


class Kernel(Protocol):
    """The system calls that are made."""

    def open(self, path: Path) -> int:
        """A descriptor of a device node."""
        ...

    def ioctl(self, descriptor: int, request: int, argument: Any) -> int:
        """What the driver answers; `argument` is written to."""
        ...

    def map(self, descriptor: int, size: int) -> Any:
        """A buffer's memory, writeable."""
        ...

    def wait(self, descriptor: int, timeout_s: float) -> bool:
        """Whether an inference has ended."""
        ...

    def close(self, descriptor: int) -> None:
        """Give a descriptor back."""
        ...


class Linux:
    """The real ones."""

    def open(self, path: Path) -> int:
        """See `Kernel.open`."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def ioctl(self, descriptor: int, request: int, argument: Any) -> int:
        """See `Kernel.ioctl`."""
        answer: int = fcntl.ioctl(descriptor, request, argument)
        return answer

    def map(self, descriptor: int, size: int) -> Any:
        """See `Kernel.map`."""
        return mmap.mmap(descriptor, size)

    def wait(self, descriptor: int, timeout_s: float) -> bool:
        """See `Kernel.wait`."""
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        return bool(waiting.poll(1000 * timeout_s))

    def close(self, descriptor: int) -> None:
        """See `Kernel.close`."""
        os.close(descriptor)


class Network:
    """A file of Vela's that the driver holds, with the memory that it runs on.

    Args:
        node: the driver's device node, `/dev/ethosu0`.
        content: the file.
        arena_bytes: memory for its tensors, as Vela says it.
        kernel: the system.
        timeout_s: that an inference may take.

    Raises:
        DeviceError: the node is not there, or the driver speaks another version.
        ModelError: the firmware does not take the file.
    """

    def __init__(
        self,
        node: Path,
        content: bytes,
        arena_bytes: int,
        *,
        kernel: Kernel | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._kernel = kernel or Linux()
        self._timeout_s = timeout_s
        with contextlib.ExitStack() as stack:
            self._device = self._owned(stack, self._opened(node))
            self._ask(self._device, PING, 0)
            file, memory = self._buffer(stack, len(content))
            memory[: len(content)] = content
            made = NetworkCreate(NETWORK_IN_BUFFER, file)
            self._network = self._owned(stack, self._ask(self._device, NETWORK_CREATE, made))
            self._info = NetworkInfo()
            self._ask(self._network, NETWORK_INFO, self._info)
            if max(self._info.input_count, self._info.output_count) > MAX_TENSORS:
                raise ModelError("The NPU's firmware names more tensors than there can be.")
            size = max(arena_bytes, self._needed())
            self._arena, self._memory = self._buffer(stack, size)
            self._results: list[tuple[int, Any]] = [
                self._buffer(stack, self._info.output_bytes[i])
                for i in range(self._info.output_count)
            ]
            self._ending = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, inputs: Sequence[bytes]) -> list[bytes]:
        """Run one inference on the bytes of its inputs; the bytes of its outputs.

        Raises:
            ModelError: the inputs do not fit, or the firmware failed on them.
            DeviceError: it took too long.
        """
        info = self._info
        sizes = list(info.input_bytes[: info.input_count])
        if [len(data) for data in inputs] != sizes:
            raise ModelError(
                "The input does not fit the model.",
                why=f"The firmware wants {sizes} bytes, it was given {[len(x) for x in inputs]}.",
            )
        for data, offset in zip(inputs, info.input_offsets, strict=False):
            self._memory[offset : offset + len(data)] = data
        with contextlib.ExitStack() as stack:
            inference = self._owned(
                stack, self._ask(self._network, INFERENCE_CREATE, self._inference())
            )
            self._ask(inference, INFERENCE_INVOKE, InferenceStatus())
            if not self._kernel.wait(inference, self._timeout_s):
                raise DeviceError(
                    "The NPU does not answer.", why=f"It has worked for {self._timeout_s:g} s."
                )
            ended = InferenceStatus()
            self._ask(inference, INFERENCE_STATUS, ended)
        if ended.status:
            said = _STATUS[ended.status] if ended.status < len(_STATUS) else str(ended.status)
            raise ModelError("The model failed on an input.", why=f"The NPU's driver says: {said}.")
        return [
            bytes(memory[: info.output_bytes[place]])
            for place, (_, memory) in enumerate(self._results)
        ]

    def close(self) -> None:
        """Give everything back, last things first."""
        self._ending.close()

    def _needed(self) -> int:
        """The end of the last input or output in the arena."""
        info = self._info
        return max(
            (
                offsets[place] + sizes[place]
                for count, offsets, sizes in (
                    (info.input_count, info.input_offsets, info.input_bytes),
                    (info.output_count, info.output_offsets, info.output_bytes),
                )
                for place in range(count)
            ),
            default=1,
        )

    def _inference(self) -> InferenceCreate:
        info = self._info
        made = InferenceCreate(kind=INFERENCE_OF_MODEL, input_count=1)
        made.inputs[0] = self._arena
        made.output_count = info.output_count
        for place, (buffer, _) in enumerate(self._results):
            made.outputs[place] = buffer
        for side in ("input", "output"):
            for field in (f"{side}_count", f"{side}_offsets", f"{side}_bytes"):
                setattr(made.layout, field, getattr(info, field))
        return made

    def _opened(self, node: Path) -> int:
        try:
            return self._kernel.open(node)
        except OSError as error:
            raise DeviceError(
                f"The Ethos-U's device node {node} cannot be opened.",
                why=f"{error.strerror}.",
                fix="Load the kernel's driver ethosu, and let this user read and write the node.",
            ) from error

    def _buffer(self, stack: contextlib.ExitStack, size: int) -> tuple[int, Any]:
        """A new buffer of the driver's, and its memory."""
        made = self._owned(stack, self._ask(self._device, BUFFER_CREATE, BufferCreate(size)))
        memory = self._kernel.map(made, size)
        stack.callback(memory.close)
        self._ask(made, BUFFER_SET, BufferRange(0, size))
        return made, memory

    def _owned(self, stack: contextlib.ExitStack, descriptor: int) -> int:
        stack.callback(self._kernel.close, descriptor)
        return descriptor

    def _ask(self, descriptor: int, request: int, argument: Any) -> int:
        try:
            return self._kernel.ioctl(descriptor, request, argument)
        except OSError as error:
            if error.errno == errno.ENOTTY:
                raise DeviceError(
                    "The Ethos-U's driver speaks another version.",
                    why=f"It does not know the request {request:#010x}.",
                    fix="Use a kernel with NXP's driver stack of LF 6.1 or later, or the delegate.",
                ) from error
            raise ModelError(
                "The Ethos-U's driver refuses the model.",
                why=f"The request {request:#010x}: {error.strerror}.",
                fix="Check that the file was compiled for this NPU, and the kernel's log.",
            ) from error
