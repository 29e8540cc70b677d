"""Puts a bitstream into an FPGA: openFPGALoader for boards on a cable, fpga-manager for SoCs."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from edgeml.errors import DeviceError

_TIMEOUT_S = 120
_TAIL = 300
MANAGER = Path("/sys/class/fpga_manager/fpga0")


def load_by_cable(bitstream: bytes, programmer: str, suffix: str) -> None:
    """Load it, as openFPGALoader does for that board without being told where.

    An ECP5 is loaded itself, gone with the power; where the cable is at an iCE40's flash, as on the
    iCEBreaker, the flash is written and the bitstream stays.

    Args:
        bitstream: what is loaded.
        programmer: the board, by openFPGALoader's name.
        suffix: of the bitstream's file, by which openFPGALoader knows the format.

    Raises:
        DeviceError: openFPGALoader is not installed, or fails.
    """
    program = shutil.which("openFPGALoader")
    if program is None:
        raise DeviceError(
            "The bitstream cannot be loaded.",
            why="There is no program openFPGALoader.",
            fix="Install it (Debian: apt-get install openfpgaloader), or load the bitstream "
            "another way and start again.",
        )
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(bitstream)
        file.flush()
        try:
            done = subprocess.run(
                [program, "--board", programmer, file.name],
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise _failed(f"It did not end in {_TIMEOUT_S} s.") from error
    if done.returncode:
        raise _failed(f"It says: {(done.stderr or done.stdout).strip()[-_TAIL:]}")


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
        fix="Check the cable and the board's power, and that this user may use them.",
    )
