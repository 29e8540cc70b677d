"""ESP-DL as a runtime: a slot that says who runs such files, since no agent does.

ESP-DL is a C++ library of firmware for Espressif's microcontrollers; an agent needs Linux. A
release holds the file all the same, so that firmware is built from what was proven and signed.
"""

from pathlib import Path

from edgeml.errors import DeviceError
from hardware.capabilities import RuntimeInfo
from hardware.runtimes.formats import ESPDL
from hardware.runtimes.interface import Session, SessionOptions

NAME = "esp-dl"


class EspDlRuntime:
    """The runtime `esp-dl`, which is never here."""

    name = NAME
    formats: tuple[str, ...] = (ESPDL,)

    def info(self) -> RuntimeInfo | None:
        """None: no machine that runs this has it."""
        return None

    def missing(self) -> str:
        """Where ESP-DL is instead, as a sentence."""
        return "ESP-DL runs in the C++ firmware of an ESP32, not in an agent on Linux."

    def load(self, model: Path, options: SessionOptions) -> Session:  # noqa: ARG002 -- see `Runtime.load`
        """Refuse; see `Runtime.load`."""
        raise DeviceError(
            f"esp-dl cannot run {model.name} here.",
            why=self.missing(),
            fix="Build the file into the firmware, with Espressif's component esp-dl.",
        )
