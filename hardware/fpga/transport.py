"""The one interface between the driver and whatever leads to an engine's bus."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DeviceError

Words = NDArray[np.uint32]


class Transport(Protocol):
    """A way to an engine's bus; addresses count 32-bit words."""

    kind: str  # as a person is told: `simulated FPGA`, `UART /dev/ttyUSB0`

    def read(self, address: int, count: int) -> Words:
        """So many words from an address on.

        Raises:
            DeviceError: no answer came, or none that can be right.
        """
        ...

    def write(self, address: int, words: Words) -> None:
        """Write words from an address on.

        Raises:
            DeviceError: no answer came, or none that can be right.
        """
        ...

    def wait(self, seconds: float) -> None:
        """Let so much time pass, or less."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def lost(kind: str, why: str) -> DeviceError:
    """The error for an engine that does not answer."""
    return DeviceError(
        f"The FPGA does not answer over {kind}.",
        why=why,
        fix="Check the cable, the board's power and that the bitstream is loaded.",
    )
