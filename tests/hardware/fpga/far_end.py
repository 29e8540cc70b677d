"""The far end of gateware's UART or SPI pins, clocked in Verilator."""

import ctypes
from pathlib import Path

from hardware.fpga.program import Size
from hardware.fpga.sources import ENGINE, SERIAL_ENGINE, build_of, gateware
from hardware.fpga.verilated import compiled

DIVIDER = 16
SILENCE = 2000  # clocks after which the gateware forgets a request that broke off
PATIENCE = 20_000


def serial_engine(size: Size, folder: Path, *, is_spi: bool) -> Path:
    """The compiled engine of that size with its pins."""
    given = {"IS_SPI": int(is_spi), "DIVIDER": DIVIDER, "TIMEOUT": SILENCE}
    return compiled(
        {name: gateware(name) for name in ENGINE + SERIAL_ENGINE},
        "edgeml_serial_engine",
        {**given, **size.parameters_of_verilog, "BUILD": f"128'h{build_of(size)}"},
        folder,
        harness="serial",
        is_quick=True,
    )


class FarEnd:
    """A port of bytes; `spoiled` is what becomes of the frames that are sent."""

    def __init__(self, model: Path, *, is_spi: bool) -> None:
        self._library = ctypes.CDLL(str(model))
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
        """So many bytes, or fewer where the gateware says nothing."""
        buffer = ctypes.create_string_buffer(size)
        got = self._library.engine_receive(self._engine, buffer, size, PATIENCE)
        return buffer.raw[:got]

    def pause(self, clocks: int = 2 * SILENCE) -> None:
        """Let time pass, by default until the gateware forgot what broke off."""
        self._library.engine_wait(self._engine, clocks)

    def close(self) -> None:
        """Free it."""
        self._library.engine_close(self._engine)
