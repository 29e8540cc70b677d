"""The far end of gateware's UART or SPI pins, clocked in Verilator: a port of bytes."""

import ctypes
from pathlib import Path

from hardware.fpga.program import Size
from hardware.fpga.serial import SerialTransport
from hardware.fpga.sources import ENGINE, SERIAL_ENGINE, build_of, gateware
from hardware.fpga.verilated import compiled

DIVIDER = 16  # clocks of a bit
SILENCE = 2000  # clocks after which the gateware forgets a request that broke off
_PATIENCE = 20_000


def serial_engine(
    size: Size, folder: Path, *, is_spi: bool, divider: int = DIVIDER, is_quick: bool = False
) -> Path:
    """The compiled engine of that size with its pins; `is_quick` as for `compiled`."""
    given = {"IS_SPI": int(is_spi), "DIVIDER": divider, "TIMEOUT": SILENCE * divider // DIVIDER}
    return compiled(
        {name: gateware(name) for name in ENGINE + SERIAL_ENGINE},
        "edgeml_serial_engine",
        {**given, **size.parameters_of_verilog, "BUILD": f"128'h{build_of(size)}"},
        folder,
        harness="serial",
        is_quick=is_quick,
    )


class VerilatedPins:
    """A port before a compiled engine of `serial_engine`.

    Args:
        model: the engine.
        is_spi: its pins are SPI, and not a UART.
        divider: clocks of a bit, as the engine has them.
    """

    def __init__(self, model: Path, *, is_spi: bool, divider: int = DIVIDER) -> None:
        self._library = ctypes.CDLL(str(model))
        engine, count = ctypes.c_void_p, ctypes.c_uint32
        self._library.engine_open.restype = engine
        self._library.engine_close.argtypes = [engine]
        self._library.engine_wait.argtypes = [engine, count]
        self._library.engine_send.argtypes = [engine, ctypes.c_char_p, count]
        self._library.engine_receive.argtypes = [engine, ctypes.c_char_p, count, count]
        self._library.engine_receive.restype = count
        self._library.engine_clocks.argtypes = [engine]
        self._library.engine_clocks.restype = ctypes.c_uint64
        self._engine = self._library.engine_open(int(is_spi), divider)

    @property
    def clocks(self) -> int:
        """That have passed."""
        return int(self._library.engine_clocks(self._engine))

    def write(self, data: bytes) -> int:
        """Send bytes."""
        self._library.engine_send(self._engine, data, len(data))
        return len(data)

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer where the gateware says nothing."""
        buffer = ctypes.create_string_buffer(size)
        got = self._library.engine_receive(self._engine, buffer, size, _PATIENCE)
        return buffer.raw[:got]

    def pause(self, clocks: int = 2 * SILENCE) -> None:
        """Let time pass, by default until the gateware forgot what broke off."""
        self._library.engine_wait(self._engine, clocks)

    def close(self) -> None:
        """Free it."""
        self._library.engine_close(self._engine)


class SimulatedSerial(SerialTransport):
    """The way to an engine over simulated pins; time passes in its clocks."""

    def __init__(self, port: VerilatedPins, clock_hz: float) -> None:
        super().__init__(port, "simulated pins")
        self._pause, self._clock_hz = port.pause, clock_hz

    def wait(self, seconds: float) -> None:
        """Run the clock for so long."""
        self._pause(int(seconds * self._clock_hz))
