"""The far end of gateware's UART or SPI pins, whose frames a test may spoil."""

from pathlib import Path

from hardware.fpga.pins import SILENCE, VerilatedPins
from hardware.fpga.pins import serial_engine as compiled_engine
from hardware.fpga.program import Size

__all__ = ["SILENCE", "FarEnd", "serial_engine"]


def serial_engine(size: Size, folder: Path, *, is_spi: bool) -> Path:
    """The compiled engine of that size with its pins, which runs for a moment."""
    return compiled_engine(size, folder, is_spi=is_spi, is_quick=True)


class FarEnd(VerilatedPins):
    """A port of bytes; `spoiled` is what becomes of the frames that are sent."""

    def __init__(self, model: Path, *, is_spi: bool) -> None:
        super().__init__(model, is_spi=is_spi)
        self.spoiled: list[bytes] = []  # sent in place of what should be, one frame each
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Send bytes, or what they were spoiled to."""
        self.sent.append(data)
        super().write(self.spoiled.pop(0) if self.spoiled else data)
        return len(data)
