"""Wipes a device that was decommissioned: keys first, so that what is left is worth nothing.

`begin` is called when the fleet has the device's word that it will; from then on every start of
the agent goes on wiping, whatever ended it in between.
"""

import os
import shutil
from pathlib import Path

from cloud_sync.release import write_atomically
from cloud_sync.release.blobs import sync_folder
from edge_agent.failpoints import reach
from edgeml.errors import DeviceError

MARKER = "wipe"
_FIRST = ("identity", "agent.toml")


def begin(data: Path) -> None:
    """Decide that this device is wiped; there is no way back."""
    write_atomically(data / MARKER, b"")


def is_begun(data: Path) -> bool:
    """Whether this device is to be wiped, or was."""
    return (data / MARKER).exists()


def wipe(data: Path) -> None:
    """Remove everything in a device's data but the marker; can be done again.

    Keys and passwords are written over before they are removed; flash memory may keep a copy all
    the same: encrypt the disk of a device that can be stolen.

    Raises:
        DeviceError: something cannot be removed.
    """
    try:
        for path in (data / "identity").glob("*"):
            if path.is_file() and not path.is_symlink():
                _overwrite(path)
        rest = sorted(path.name for path in data.iterdir() if path.name != MARKER)
        for name in (*(n for n in _FIRST if n in rest), *(n for n in rest if n not in _FIRST)):
            reach("wiping")
            path = data / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        sync_folder(data)
    except OSError as error:
        raise DeviceError(
            f"The device's data in {data} cannot be wiped.",
            why=f"{error.strerror or error}: {error.filename}.",
            fix="Remove the folder by hand, or destroy the disk.",
        ) from error


def _overwrite(path: Path) -> None:
    with path.open("rb+") as stream:
        stream.write(os.urandom(path.stat().st_size))
        stream.flush()
        os.fsync(stream.fileno())
