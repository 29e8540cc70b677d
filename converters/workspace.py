"""The folder in which a conversion works: beside its output, gone at the end.

`kill -9` and power loss leave one behind. It is locked for as long as its process lives, which
the kernel sees to, so that the next conversion to the same place knows it as a dead one's and
removes it; one that works there at the same time is left alone.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = ".partial"


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """A folder beside `out`, gone at the end; what shall stay is renamed out of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    _sweep(out)
    folder, lock = _locked_folder(out)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(out: Path) -> None:
    """Remove what conversions to `out` left that are no more."""
    for folder in out.parent.glob(f"{_prefix(out)}*{_SUFFIX}"):
        with suppress(OSError):  # another one's, or just gone
            lock = _lock(folder)
            try:
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _locked_folder(out: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(out), suffix=_SUFFIX, dir=out.parent))
        with suppress(BlockingIOError, FileNotFoundError):  # another one swept it meanwhile
            lock = _lock(folder)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _prefix(out: Path) -> str:
    return f".{out.name}."


def _lock(folder: Path) -> int:
    """Lock a folder until this process ends or closes what is returned.

    Raises:
        BlockingIOError: another process has.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
