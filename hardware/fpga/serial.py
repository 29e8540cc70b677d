"""The way to an engine over a serial port: frames with checks, sent again where one fails.

`docs/fpga-engine.md` has the frames. `pyserial` is imported when a port is opened.
"""

import importlib
import time
from typing import Any, Protocol

import numpy as np

from edgeml.errors import DeviceError
from hardware.fpga import registers as at
from hardware.fpga.transport import Words, lost

SYNC, ANSWER = 0xA5, 0x5A
READ, WRITE = 1, 2
SILENCE_S = 0.05  # after which the engine has forgotten a request that broke off
BAUD = 1_000_000
_HEAD = 2  # of an answer
_LEADING = 256  # bytes before an answer at most
_TRIES = 3
_WORDS = 4096  # of a frame
_TIMEOUT_S = 2.0


class Port(Protocol):
    """Bytes out and in: a serial port, an SPI device, or the far end in a simulation."""

    def write(self, data: bytes) -> Any:
        """Send bytes."""
        ...

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer where no more came in time."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class SerialTransport:
    """An engine behind a port of bytes."""

    def __init__(self, port: Port, kind: str) -> None:
        self._port = port
        self.kind = kind

    def read(self, address: int, count: int) -> Words:
        """So many words from an address on."""
        parts = [
            np.frombuffer(self._ask(READ, address + first, min(_WORDS, count - first), b""), "<u4")
            for first in range(0, count, _WORDS)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.uint32)

    def write(self, address: int, words: Words) -> None:
        """Write words from an address on.

        A start is sent once: without an answer it may be done by now, with its input overwritten.
        """
        given = np.ascontiguousarray(words, "<u4")
        is_start = address == at.REGISTERS + at.CONTROL and bool(given[:1] & at.START)
        for first in range(0, given.size, _WORDS):
            part = given[first : first + _WORDS]
            tries = 1 if is_start else _TRIES
            self._ask(WRITE, address + first, part.size, part.tobytes(), tries=tries)

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        time.sleep(seconds)

    def close(self) -> None:
        """Let go of the port."""
        self._port.close()

    def _ask(
        self, operation: int, address: int, count: int, payload: bytes, *, tries: int = _TRIES
    ) -> bytes:
        why = ""
        for _ in range(tries):
            try:
                self._port.write(request(operation, address, count, payload))
                answer = self._answer(4 * count if operation == READ else 0)
            except OSError as error:  # pulled out
                raise lost(self.kind, f"{error}.") from error
            if isinstance(answer, bytes):
                return answer
            why = answer.why
            self.wait(SILENCE_S)
        raise lost(self.kind, why)

    def _answer(self, size: int) -> "bytes | _Failed":
        head = self._port.read(2)
        for _ in range(_LEADING):  # SPI gives zeros until there is an answer
            if len(head) < _HEAD or head[0] == ANSWER:
                break
            head = head[1:] + self._port.read(1)
        rest = self._port.read(size + 2) if head else b""
        if len(head + rest) < size + 4 or head[0] != ANSWER:
            return _Failed("It sent no whole answer.")
        if crc(head + rest):
            return _Failed("The check of its answer failed.")
        if head[1]:
            return _Failed("The check of what was written failed.")
        return rest[:size]


class _Failed:
    def __init__(self, why: str) -> None:
        self.why = why


def request(operation: int, address: int, count: int, payload: bytes) -> bytes:
    """A frame as the bridge takes it."""
    header = bytes([SYNC, operation]) + address.to_bytes(3, "little") + count.to_bytes(2, "little")
    framed = header + crc(header).to_bytes(2, "big")
    return framed + payload + crc(payload).to_bytes(2, "big") if operation == WRITE else framed


def crc(data: bytes) -> int:
    """CRC-16 with the polynomial 0x1021 and 0xFFFF at the start; 0 over data and its own check.

    >>> hex(crc(b"123456789"))
    '0x29b1'
    """
    value = 0xFFFF
    for byte in data:
        value = (value << 8 & 0xFF00) ^ _TABLE[(value >> 8) ^ byte]
    return value


def _entry(byte: int) -> int:
    value = byte << 8
    for _ in range(8):
        value = (value << 1) ^ (0x1021 if value & 0x8000 else 0)
    return value & 0xFFFF


_TABLE = tuple(_entry(byte) for byte in range(256))


def open_serial(device: str, baud: int = BAUD) -> SerialTransport:
    """Open a serial port.

    Raises:
        DeviceError: pyserial is not installed, or the port cannot be opened.
    """
    try:
        serial = importlib.import_module("serial")
    except ImportError as error:
        raise DeviceError(
            "The FPGA cannot be reached over a serial port.",
            why="The package pyserial is not installed.",
            fix="Install it: pip install 'edgeml[fpga]'",
        ) from error
    try:
        port: Port = serial.Serial(device, baud, timeout=_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"The serial port {device} cannot be opened.",
            why=f"{error}.",
            fix="Check that the board is plugged in and that this user may use the port.",
        ) from error
    return SerialTransport(port, f"UART {device}")
