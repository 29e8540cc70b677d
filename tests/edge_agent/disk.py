"""A disk that a test can fill."""

import contextlib
from pathlib import Path

FILLER = "filler"


def fill(folder: Path) -> None:
    """Leave not a byte free."""
    with (folder / FILLER).open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))


def free(folder: Path) -> None:
    """Take away what `fill` wrote."""
    (folder / FILLER).unlink()
