"""Reading a pipe or socket to a wanted length, and no longer than one is asked to."""

import os
import select
import threading

from edgeml.errors import DeviceError

LOOK_S = 0.1


class Stopped(Exception):  # noqa: N818 -- no error: somebody asked for it
    """The reader is to stop."""


def fill(descriptor: int, into: memoryview, stop: threading.Event) -> bool:
    """Read until it is full; False where the stream ends before the first byte.

    Raises:
        Stopped: the event was set.
        DeviceError: the stream ends after it.
    """
    done = 0
    while done < len(into):
        wait(descriptor, stop)
        count = os.readv(descriptor, [into[done:]])
        if count == 0:
            if not done:
                return False
            raise DeviceError("The stream ended in the middle.")
        done += count
    return True


def wait(descriptor: int, stop: threading.Event) -> None:
    """Wait until there is something to read.

    Raises:
        Stopped: the event was set.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while not poll.poll(LOOK_S * 1000):
        if stop.is_set():
            raise Stopped
    if stop.is_set():
        raise Stopped
