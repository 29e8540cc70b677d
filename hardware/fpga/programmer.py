"""Puts a bitstream into an FPGA: by openFPGALoader over a cable, in a SoC by the kernel.

The kernel's way is the fpga-manager: it takes the name of a file below /lib/firmware.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from edgeml.errors import DeviceError

MANAGER = Path("/sys/class/fpga_manager/fpga0")
FIRMWARE = Path("/lib/firmware")
PROGRAM = "openFPGALoader"
_TIMEOUT_S = 300
_TAIL = 300
_ECP5 = bytes.fromhex("ffffbdb3")  # the preamble of its bitstreams, behind a comment
_HEADER = 4096
_DIGITS = b"01\n"  # Gowin's are text of them


def load_by_cable(
    content: bytes, board: str, *, flash_offset: int | None = None, folder: Path | None = None
) -> None:
    """Load with openFPGALoader.

    Args:
        content: a bitstream as the family's packer writes it, or data for the flash.
        board: openFPGALoader's name for it.
        flash_offset: where in the board's flash data goes; a bitstream has none.
        folder: where the file is kept for whoever loads it by hand; the user's cache by default.

    Raises:
        DeviceError: the program is missing, or fails; the error has the command.
    """
    file = _kept(content, folder)
    where = [] if flash_offset is None else ["--write-flash", "--offset", str(flash_offset)]
    command = [PROGRAM, "--board", board, *where, str(file)]
    said = " ".join(command)
    if not board:
        raise DeviceError(
            "The bitstream cannot be loaded.",
            why="It names no board that openFPGALoader knows.",
            fix=f"Load {file} with the board's own tool, then start the agent again.",
        )
    if shutil.which(PROGRAM) is None:
        raise DeviceError(
            "The bitstream cannot be loaded.",
            why=f"There is no program {PROGRAM}.",
            fix=f"Install it (Debian: apt-get install openfpgaloader), or load it from a machine "
            f"that has it: {said}",
        )
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(f"{type(error).__name__}: {error}.", said) from error
    if done.returncode:
        raise _failed(f"It says: {(done.stderr or done.stdout)[-_TAIL:].strip()}", said)


def load_by_manager(bitstream: bytes, manager: Path = MANAGER, firmware: Path = FIRMWARE) -> None:
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
        raise _refused(f"{error}.") from error
    if state != "operating":
        raise _refused(f"The fpga-manager's state is {state}.")


def _kept(content: bytes, folder: Path | None) -> Path:
    """A file of it, by its SHA-256; its suffix tells openFPGALoader what it is."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = folder or cache / "edgeml" / "bitstreams"
    header = content[:_HEADER]
    suffix = "bit" if _ECP5 in header else "bin" if header.strip(_DIGITS) else "fs"
    file = place / f"{hashlib.sha256(content).hexdigest()}.{suffix}"
    if not (file.is_file() and file.read_bytes() == content):
        place.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return file


def _failed(why: str, command: str) -> DeviceError:
    return DeviceError(
        f"{PROGRAM} cannot load the bitstream.",
        why=why,
        fix=f"Check the cable and that this user may use it, then try by hand: {command}",
    )


def _refused(why: str) -> DeviceError:
    return DeviceError(
        "The bitstream cannot be loaded.",
        why=why,
        fix="Check that it is of this part, and that this user may use the fpga-manager.",
    )
