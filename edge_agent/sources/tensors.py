"""Tensors in numpy's .npy format, one behind the other, over stdin or a Unix socket.

    python produce.py | edgeml agent ...           # npy:-
    numpy.save(socket.makefile("wb"), array)       # npy:///run/edgeml/belt.sock

Source: numpy, NEP 1, "A Simple File Format for NumPy Arrays". Nothing is unpickled.
"""

import contextlib
import io
import logging
import math
import os
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud_sync.messages import SourceConfig
from edge_agent.sources.interface import Kind, address, shown
from edge_agent.sources.pipes import Stopped, fill, wait
from edgeml.errors import DeviceError

log = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
MAX_HEADER = 10_000
MAX_AXES = 8


class PipeReader:
    """Arrays from a file descriptor that somebody else opened."""

    kind: Kind = "events"
    fps = 0.0

    def __init__(self, descriptor: int, stop: threading.Event) -> None:
        self._descriptor, self._stop = descriptor, stop

    def read(self) -> tuple[float, NDArray[Any]] | None:
        """The next array; None where the other end closed between two."""
        try:
            found = read_array(self._descriptor, self._stop)
        except Stopped:
            return None
        return None if found is None else (time.monotonic(), found)

    def close(self) -> None:
        """What somebody else opened stays open."""


class SocketReader:
    """Arrays from whoever connects to a Unix socket, one after the other."""

    kind: Kind = "events"
    fps = 0.0

    def __init__(self, path: Path, stop: threading.Event) -> None:
        self._path, self._stop = path, stop
        self._client: socket.socket | None = None
        self._server = _listen(path)

    def read(self) -> tuple[float, NDArray[Any]] | None:
        """The next array of who is connected, or of who connects next."""
        while not self._stop.is_set():
            try:
                if self._client is None:
                    wait(self._server.fileno(), self._stop)
                    self._client = self._server.accept()[0]
                found = read_array(self._client.fileno(), self._stop)
            except Stopped:
                break
            except (DeviceError, OSError) as error:
                log.warning("%s: its client is cut off: %s", self._path, error)
                found = None
            if found is not None:
                return time.monotonic(), found
            self._hang_up()
        return None

    def close(self) -> None:
        """Cut off who is connected, and take the socket away."""
        self._hang_up()
        self._server.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def read_array(descriptor: int, stop: threading.Event) -> NDArray[Any] | None:
    """Read one array; None at the end of the stream.

    Raises:
        Stopped: the event was set.
        DeviceError: this is no array of numbers, is too large, or ends in the middle.
    """
    start = _exactly(descriptor, 8, stop, may_end=True)
    if start is None:
        return None
    wide = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(bytes(start))
    if wide is None:
        raise DeviceError("This is no .npy array.", why=f"It begins with {bytes(start)!r}.")
    length = _must(_exactly(descriptor, wide, stop))
    size = int.from_bytes(length, "little")
    if size > MAX_HEADER:
        raise DeviceError("This is no .npy array.", why=f"Its header has {size} bytes.")
    header = io.BytesIO(bytes(length) + bytes(_must(_exactly(descriptor, size, stop))))
    parse = (
        np.lib.format.read_array_header_1_0 if wide == 2 else np.lib.format.read_array_header_2_0  # noqa: PLR2004
    )
    try:
        shape, fortran, dtype = parse(header)
    except Exception as error:
        # The header is read with Python's own parser, which has many ways to refuse a text.
        raise DeviceError(
            "This is no .npy array.", why=f"{type(error).__name__}: {error}"
        ) from error
    nbytes = math.prod(shape) * dtype.itemsize
    sane = len(shape) <= MAX_AXES and all(axis > 0 for axis in shape) and nbytes <= MAX_BYTES
    if dtype.kind not in "iuf" or not sane:
        raise DeviceError(
            f"An array {dtype}{list(shape)} is not taken.",
            why=f"Numbers are, up to {MAX_BYTES >> 20} MiB.",
        )
    flat = np.empty(nbytes // dtype.itemsize, dtype)
    if not fill(descriptor, flat.view(np.uint8).data, stop):
        raise DeviceError("The stream ended in the middle of an array.")
    native = flat.astype(dtype.newbyteorder("="), copy=False)
    return native.reshape(shape, order="F" if fortran else "C")


def _must(found: bytearray | None) -> bytearray:
    assert found is not None
    return found


def _exactly(
    descriptor: int, count: int, stop: threading.Event, *, may_end: bool = False
) -> bytearray | None:
    data = bytearray(count)
    if fill(descriptor, memoryview(data), stop):
        return data
    if may_end:
        return None
    raise DeviceError("The stream ended in the middle of an array.")


def _listen(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            path.unlink()  # left by an agent that was killed
        os.fchmod(server.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        server.bind(str(path))
        server.listen(1)
    except OSError as error:
        server.close()
        raise DeviceError(
            f"The socket {path} cannot be made.", why=f"{error.strerror or error}."
        ) from error
    return server


def open_tensors(config: SourceConfig, stop: threading.Event) -> PipeReader | SocketReader:
    """`npy:-` for stdin, `npy:///path/to/socket`."""
    path = check_tensors(config)
    return PipeReader(0, stop) if path is None else SocketReader(path, stop)


def check_tensors(config: SourceConfig) -> Path | None:
    """The socket's path; None for stdin."""
    where = address(config.uri)
    if where.path == "-":
        return None
    if not where.path.startswith("/"):
        raise DeviceError(
            f"The source {shown(config.uri)!r} names no socket.",
            fix="Write npy:- or npy:///run/edgeml/belt.sock.",
        )
    return Path(where.path)
