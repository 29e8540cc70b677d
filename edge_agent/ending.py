"""How the agent's process ends: why it gives up, and that no second one runs beside it."""

import errno
import fcntl
import os
import signal
from pathlib import Path
from typing import Any

from edgeml.errors import DeviceError


class Ending:
    """Ends the process for whoever started it, also where no signal would be handled.

    Attributes:
        fatal: why it gave up, if it did: something is broken that only another process can mend.
        again: set where it ends well, only to be started again.
    """

    def __init__(self) -> None:
        self.fatal: DeviceError | None = None
        self.again: DeviceError | None = None

    def give_up(self, why: str) -> None:
        """End because of a fault."""
        if self.fatal is None:
            self.fatal = DeviceError(
                "The agent ends, so that it can be started again.",
                why=f"{why}.",
                fix="Look at the driver of what runs the models; let a supervisor restart this.",
            )
            os.kill(os.getpid(), signal.SIGTERM)

    def restart(self) -> None:
        """End well, and so that whoever started this process starts it again."""
        self.again = DeviceError("The agent ends, to be started again.", why="It was told to.")
        os.kill(os.getpid(), signal.SIGTERM)


def only_one(path: Path) -> Any:
    """Hold a lock on the data folder for as long as the file is open.

    Raises:
        DeviceError: another agent holds it, or the folder cannot be used.
    """
    stream = _opened(path)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        stream.close()
        raise DeviceError(
            f"An agent runs on {path.parent} already.",
            fix="Stop it first, or give this one a folder of its own.",
        ) from error
    return stream


def _opened(path: Path) -> Any:
    try:
        return path.open("w")
    except OSError as error:
        # A disk that fails is made read-only; what is installed runs from it all the same.
        if error.errno == errno.EROFS and path.exists():
            return path.open()
        raise DeviceError(
            f"The data folder {path.parent} cannot be used.",
            why=f"{error}.",
            fix="Check that it is there, and belongs to the user that runs the agent.",
        ) from error
