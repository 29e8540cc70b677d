"""The way to an engine in a SoC: its bus mapped into memory, by UIO or by /dev/mem."""

import mmap
import os
import time

import numpy as np

from edgeml.errors import DeviceError
from hardware.fpga.registers import ADDRESS_BITS
from hardware.fpga.transport import Words

BYTES = 4 << ADDRESS_BITS


class MappedTransport:
    """An engine at an offset of a device file.

    Args:
        device: `/dev/uio0`, or `/dev/mem` with the engine's physical address as the offset.
        offset: in bytes, a multiple of the page size.

    Raises:
        DeviceError: the file cannot be mapped.
    """

    def __init__(self, device: str, offset: int = 0) -> None:
        self.kind = f"memory {device}"
        try:
            file = os.open(device, os.O_RDWR | os.O_SYNC)
            try:
                self._map = mmap.mmap(file, BYTES, offset=offset)
            finally:
                os.close(file)
        except (OSError, ValueError) as error:
            raise DeviceError(
                f"The FPGA's bus at {device} cannot be mapped.",
                why=f"{error}.",
                fix="Check the device tree, the driver (uio) and this user's rights.",
            ) from error
        self._words: Words | None = np.frombuffer(self._map, np.uint32)

    def read(self, address: int, count: int) -> Words:
        """So many words from an address on, each read once."""
        assert self._words is not None
        # One by one: a bus knows no wider access, and no slice that a library may read twice.
        return np.array([self._words[address + i] for i in range(count)], np.uint32)

    def write(self, address: int, words: Words) -> None:
        """Write words from an address on."""
        assert self._words is not None
        for i, word in enumerate(words):
            self._words[address + i] = word

    def wait(self, seconds: float) -> None:
        """Let so much time pass."""
        time.sleep(seconds)

    def close(self) -> None:
        """Unmap it."""
        self._words = None
        self._map.close()
