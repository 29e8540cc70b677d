"""Reads the kernel's small files below a root folder; what is not there reads as empty."""

from collections.abc import Iterator
from pathlib import Path

_MAX_BYTES = 1 << 20


def text(path: Path) -> str:
    """A file's text, stripped of blanks and NULs; empty where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES).decode(errors="replace").strip("\0\n\t ")
    except OSError:
        return ""


def words(path: Path) -> tuple[str, ...]:
    """The NUL-separated strings of a device-tree property (`compatible`)."""
    return tuple(word for word in text(path).split("\0") if word)


def number(path: Path) -> int | None:
    """A file's whole number; None where there is none."""
    try:
        return int(text(path))
    except ValueError:
        return None


def fields(path: Path) -> dict[str, str]:
    """The `KEY=value` lines of a `uevent` file."""
    pairs = (line.partition("=") for line in text(path).splitlines())
    return {key: value for key, _, value in pairs}


def each(folder: Path, pattern: str) -> Iterator[Path]:
    """The entries that match, ordered by name; none where the folder is not there."""
    try:
        yield from sorted(folder.glob(pattern))
    except OSError:
        return
