"""The far end of gateware's UART or SPI pins, whose frames a test may spoil."""

from pathlib import Path

from hardware.fpga.pins import SILENCE, VerilatedPins
from hardware.fpga.pins import serial_engine as compiled_engine
from hardware.fpga.program import Size

_ANSWER = 64  # bytes, and more than the answer to a write

__all__ = ["SILENCE", "FarEnd", "serial_engine"]


def serial_engine(size: Size, folder: Path, *, is_spi: bool) -> Path:
    """The compiled engine of that size with its pins, which runs for a moment."""
    return compiled_engine(size, folder, is_spi=is_spi, is_quick=True)


class FarEnd(VerilatedPins):
    """A port of bytes; `spoiled` is what becomes of the frames that are sent.

    `instead` is what becomes of a certain frame, and the answers to those that are `unheard` are
    lost, each once.
    """

    def __init__(self, model: Path, *, is_spi: bool) -> None:
        super().__init__(model, is_spi=is_spi)
        self.spoiled: list[bytes] = []  # sent in place of what should be, one frame each
        self.instead: dict[bytes, bytes] = {}
        self.unheard: list[bytes] = []
        self.sent: list[bytes] = []
        self._is_deaf = False

    def write(self, data: bytes) -> int:
        """Send bytes, or what they were spoiled to."""
        self.sent.append(data)
        self._is_deaf = data in self.unheard
        if self._is_deaf:
            self.unheard.remove(data)
        super().write(self.spoiled.pop(0) if self.spoiled else self.instead.pop(data, data))
        return len(data)

    def read(self, size: int) -> bytes:
        """So many bytes, or none where the answer is lost."""
        if self._is_deaf:
            super().read(_ANSWER)
            return b""
        return super().read(size)
