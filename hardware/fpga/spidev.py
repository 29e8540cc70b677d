"""An engine behind an SPI controller of Linux: `/dev/spidev0.0` as a port of bytes.

The character device sends what is written and receives what is read, each in a transfer of its
own, at most `bufsiz` bytes of the kernel's module. Nothing but the standard library is needed.
"""

import fcntl
import os
import struct

from edgeml.errors import DeviceError
from hardware.fpga.serial import SerialTransport

SPEED_HZ = 1_000_000  # at most an eighth of the engine's clock: 12 MHz on an iCEBreaker
BUFFER = 4096
# _IOW('k', number, size) of linux/spi/spidev.h
_WRITE_MODE, _WRITE_SPEED = 0x40016B01, 0x40046B04


class SpiPort:
    """Bytes over an SPI device file, mode 0.

    Raises:
        OSError: there is no such file, or it is no SPI device.
    """

    def __init__(self, device: str, speed_hz: int = SPEED_HZ) -> None:
        self._file = os.open(device, os.O_RDWR)
        try:
            fcntl.ioctl(self._file, _WRITE_MODE, struct.pack("B", 0))
            fcntl.ioctl(self._file, _WRITE_SPEED, struct.pack("=I", speed_hz))
        except OSError:
            os.close(self._file)
            raise

    def write(self, data: bytes) -> int:
        """Send bytes."""
        for at in range(0, len(data), BUFFER):
            os.write(self._file, data[at : at + BUFFER])
        return len(data)

    def read(self, size: int) -> bytes:
        """So many bytes; zeros where the engine has nothing to say."""
        return b"".join(
            os.read(self._file, min(BUFFER, size - at)) for at in range(0, size, BUFFER)
        )

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)


def open_spi(device: str, speed_hz: int = SPEED_HZ) -> SerialTransport:
    """Open an SPI device.

    Raises:
        DeviceError: it cannot be opened.
    """
    try:
        return SerialTransport(SpiPort(device, speed_hz), f"SPI {device}")
    except OSError as error:
        raise DeviceError(
            f"The SPI device {device} cannot be opened.",
            why=f"{error}.",
            fix="Check that the device tree has SPI switched on, and this user's rights.",
        ) from error
