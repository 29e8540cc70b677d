"""What toolchains write while they work: a file each, kept where one fails.

`EDGEML_LOGS`, else `$XDG_STATE_HOME/edgeml/logs`, else `~/.local/state/edgeml/logs` holds them:
while a toolchain works, where it can be followed, and afterwards if it failed, refused or was
killed. The log of what succeeded goes to whoever asked for it, for a compiled target into the
evidence.

A log is a file and no pipe, so that its writers never wait for a reader, and a runner may read
what a library printed into it (`os.pread(2, ...)`).
"""

import os
import tempfile
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

_MOST_BYTES = 4 << 20  # of a log; its beginning and its end are kept
_MOST_LOGS = 100
_MOST_LINE = 4000  # characters of a line of edgeml's own
_TAIL_LINES = 4
_TAIL_CHARACTERS = 800


class Log:
    """The log of one process; removed by `close` unless it was kept.

    Args:
        name: of the program; the file's name begins with it.
    """

    def __init__(self, name: str) -> None:
        handle, path = _new(f"{name}-")
        self.path = Path(path)
        self.file = os.fdopen(handle, "r+b", buffering=0)
        self._is_kept = False
        self._said = 0  # where what edgeml itself wrote ends

    def say(self, line: str) -> None:
        """Write what is asked of the process, before it is; a disk that is full stops nothing."""
        self.file.seek(0, os.SEEK_END)
        with suppress(OSError):
            self.file.write(f"{line[:_MOST_LINE]}\n".encode())
        self._said = self.file.tell()

    def fileno(self) -> int:
        """For `subprocess`: where the process writes."""
        return self.file.fileno()

    def read(self) -> bytes:
        """All of it; of a log of more than 4 MB its beginning and its end."""
        size = os.fstat(self.fileno()).st_size
        if size <= _MOST_BYTES:
            return os.pread(self.fileno(), size, 0)
        half = _MOST_BYTES // 2
        left_out = f"\n[{size - 2 * half} bytes are left out here]\n".encode()
        first, last = (os.pread(self.fileno(), half, at) for at in (0, size - half))
        return first + left_out + last

    def last_words(self) -> str:
        """The last lines that the process wrote, as part of an error."""
        size = os.fstat(self.fileno()).st_size
        begin = max(self._said, size - _MOST_LINE)
        words = tail(os.pread(self.fileno(), size - begin, begin))
        return f" Its last words: {words}" if words else ""

    def keep(self, ending: str) -> str:
        """Let the file stay, with a last line; the sentence that says where it is."""
        self._is_kept = True
        with suppress(OSError):  # of a disk that is full, what is there stays
            if os.fstat(self.fileno()).st_size > _MOST_BYTES:
                content = self.read()
                os.ftruncate(self.fileno(), 0)
                os.pwrite(self.fileno(), content, 0)
            self.say(ending)
        return f"Its log is {self.path}."

    def close(self) -> None:
        """The process has ended."""
        self.file.close()
        if not self._is_kept:
            self.path.unlink(missing_ok=True)


def home() -> Path:
    """The folder of logs."""
    if chosen := os.environ.get("EDGEML_LOGS"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "edgeml" / "logs"


def tail(text: bytes) -> str:
    """The last lines of a program's complaints; of Python's, the error without its traceback."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    said = list(takewhile(lambda line: not line[0].isspace(), lines[:-_TAIL_LINES:-1]))
    return "\n".join(said[::-1] or lines[-1:])[-_TAIL_CHARACTERS:]


def _new(prefix: str) -> tuple[int, str]:
    """A file of its own, in the system's temporary folder where the logs' cannot be written."""
    folder: Path | None = home()
    assert folder is not None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _bound(folder)
        return tempfile.mkstemp(prefix=prefix, suffix=".log", dir=folder)
    except OSError:
        return tempfile.mkstemp(prefix=f"edgeml-{prefix}", suffix=".log")


def _bound(folder: Path) -> None:
    """Remove the oldest logs of too many."""
    found = []
    for path in folder.glob("*.log"):
        with suppress(OSError):  # just gone
            found.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(found)[: -_MOST_LOGS or None]:
        path.unlink(missing_ok=True)
