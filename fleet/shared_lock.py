"""A lock over files that several processes of one fleet share: keys, ledger, TUF metadata."""

import fcntl
import os
import threading
from pathlib import Path
from typing import Self


class SharedLock:
    """Keeps out other threads and other processes; whoever holds it may take it again.

    The kernel lets go of it when the process ends, however it ends. On NFS it needs version 4.

    >>> import tempfile
    >>> lock = SharedLock(Path(tempfile.mkdtemp()) / "lock")
    >>> with lock, lock:
    ...     pass

    Args:
        path: a file of its own, which is made and stays empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.RLock()
        self._depth = 0
        self._handle = -1

    def __enter__(self) -> Self:
        """Wait for it.

        Raises:
            OSError: the file cannot be made.
        """
        self._threads.acquire()
        try:
            if self._depth == 0:
                self._handle = self._take()
        except BaseException:
            self._threads.release()
            raise
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self._depth -= 1
        if self._depth == 0:
            os.close(self._handle)
        self._threads.release()

    def _take(self) -> int:
        self._path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except BaseException:
            os.close(handle)
            raise
        return handle
