"""Puts a bitstream into the FPGA of a system on a chip, by the kernel's fpga-manager."""

from pathlib import Path

from edgeml.errors import DeviceError

MANAGER = Path("/sys/class/fpga_manager/fpga0")


def load_by_manager(
    bitstream: bytes, manager: Path = MANAGER, firmware: Path = Path("/lib/firmware")
) -> None:
    """Load through the kernel's fpga-manager.

    Raises:
        DeviceError: this machine has none, or it refuses.
    """
    name = "edgeml-fpga.bin"
    try:
        (firmware / name).write_bytes(bitstream)
        (manager / "firmware").write_text(name)
        state = (manager / "state").read_text().strip()
    except OSError as error:
        raise _failed(f"{error}.") from error
    if state != "operating":
        raise _failed(f"The fpga-manager's state is {state}.")


def _failed(why: str) -> DeviceError:
    return DeviceError(
        "The bitstream cannot be loaded.",
        why=why,
        fix="Check that it is of this part, and that this user may use the fpga-manager.",
    )
