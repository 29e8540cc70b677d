"""A browser drops what it loads when this machine's network changes: such tests take turns."""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = Path(tempfile.gettempdir()) / "edgeml-tests-network.lock"


@contextmanager
def steady() -> Iterator[None]:
    """No test changes the network meanwhile; any number may rely on that."""
    with _held(fcntl.LOCK_SH):
        yield


@contextmanager
def changing() -> Iterator[None]:
    """No test relies on the network meanwhile."""
    with _held(fcntl.LOCK_EX):
        yield


@contextmanager
def _held(how: int) -> Iterator[None]:
    with _LOCK.open("a") as lock:
        fcntl.flock(lock, how)
        yield
