"""Turns at one FPGA: of all sessions and processes that a way leads from, one at a time uses it."""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from edgeml.errors import DeviceError
from hardware.fpga.simulated import KIND

WAITS_S = 120.0
_POLL_S = 0.002


@contextmanager
def turn(provider: str, waits_s: float = WAITS_S) -> Iterator[None]:
    """Nobody else on this machine uses that FPGA meanwhile, who asks for a turn, too.

    Raises:
        DeviceError: somebody has used it for all the time that this one waits, in seconds.
    """
    path = _lock_of(provider)
    if path is None:
        yield
        return
    flags = os.O_RDONLY if path.exists() else os.O_RDWR | os.O_CREAT
    try:
        lock = os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError:  # so will the transport find, and say
        yield
        return
    try:
        _wait(lock, provider, time.monotonic() + waits_s)
        yield
    finally:
        os.close(lock)


def _wait(lock: int, provider: str, until: float) -> None:
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise DeviceError(
                    f"The FPGA at {provider} is in use.",
                    why="Another session has not let go of it; one at a time may use it.",
                    fix="End the other program that runs networks on it.",
                ) from None
        time.sleep(_POLL_S)


def _lock_of(provider: str) -> Path | None:
    """The device's own node, or a file of this user where there is none."""
    if provider == KIND:  # each session has one of its own
        return None
    kind, _, rest = provider.partition(":")
    place = Path("/dev/mem" if kind == "mem" else rest.partition("@")[0])
    if kind != "etherbone":
        return place if place.exists() else None
    digest = sha256(rest.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"edgeml-fpga-{os.getuid()}-{digest}.lock"
