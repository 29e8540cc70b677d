"""The far end of an engine's UART or SPI pins, clocked in Verilator."""

import ctypes
from pathlib import Path

from hardware.fpga.program import Size
from hardware.fpga.simulated import build_of, compiled

DIVIDER = 16
SILENCE = 2000  # clocks after which the engine forgets a request that broke off
PATIENCE = 20_000


class FarEnd:
    """A port of bytes; `spoil` is asked what becomes of the bytes that are sent."""

    def __init__(self, size: Size, folder: Path, *, is_spi: bool) -> None:
        given = {"IS_SPI": int(is_spi), "DIVIDER": DIVIDER, "TIMEOUT": SILENCE}
        library = compiled(size, build_of(size), folder, harness="serial", parameters=given)
        self._library = ctypes.CDLL(str(library))
        engine, count = ctypes.c_void_p, ctypes.c_uint32
        self._library.engine_open.restype = engine
        self._library.engine_close.argtypes = [engine]
        self._library.engine_wait.argtypes = [engine, count]
        self._library.engine_send.argtypes = [engine, ctypes.c_char_p, count]
        self._library.engine_receive.argtypes = [engine, ctypes.c_char_p, count, count]
        self._library.engine_receive.restype = count
        self._engine = self._library.engine_open(int(is_spi), DIVIDER)
        self.spoiled: list[bytes] = []  # sent in place of what should be, one frame each
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Send bytes, or what they were spoiled to."""
        self.sent.append(data)
        out = self.spoiled.pop(0) if self.spoiled else data
        self._library.engine_send(self._engine, out, len(out))
        return len(data)

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer where the engine says nothing."""
        buffer = ctypes.create_string_buffer(size)
        got = self._library.engine_receive(self._engine, buffer, size, PATIENCE)
        return buffer.raw[:got]

    def pause(self) -> None:
        """Let the engine forget what broke off."""
        self._library.engine_wait(self._engine, 2 * SILENCE)

    def close(self) -> None:
        """Free it."""
        self._library.engine_close(self._engine)
