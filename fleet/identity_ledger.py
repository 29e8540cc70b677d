"""What a restored database must not forget: who was let in, who was revoked, which tokens are used.

A file of lines beside the keys, `keys/ledger.jsonl`, appended to before the database commits. A
database that comes back from a backup is brought up to it (`fleet.services.recovery`); else the
old key of a replaced device, a used token or a revoked device would be good again.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from cloud_sync.release import write_atomically
from edgeml.errors import TrustError
from fleet.shared_lock import SharedLock

_MODE = 0o600
_MAX_LINES = 4  # times as many lines as there are devices and tokens


class Admitted(msgspec.Struct, frozen=True, kw_only=True, tag="admitted"):
    """A device was given a certificate."""

    device: str
    certificate: str
    password_hash: str
    at: float


class Revoked(msgspec.Struct, frozen=True, kw_only=True, tag="revoked"):
    """A device was revoked."""

    device: str
    at: float


class Spent(msgspec.Struct, frozen=True, kw_only=True, tag="spent"):
    """A token was used, and has so many uses left."""

    token_hash: str
    uses: int
    at: float
    expires_at: float


Entry = Admitted | Revoked | Spent


class Ledger:
    """The file; safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = SharedLock(path.with_suffix(".lock"))
        if path.exists():
            with self._lock, path.open("r+b") as stream:
                # What a crash cut off was not committed; no line shall be written after it.
                stream.truncate(stream.read().rfind(b"\n") + 1)

    def append(self, *entries: Entry) -> None:
        """Write entries, on the disk when this returns.

        Raises:
            OSError: the disk cannot be used; nothing is written.
        """
        lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
        with self._lock:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
            end = os.fstat(handle).st_size
            try:
                if os.write(handle, lines) < len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, end)
                raise
            finally:
                os.close(handle)

    def entries(self) -> list[Entry]:
        """What still matters, in order: of each device and token the newest.

        Raises:
            TrustError: the file is damaged.
        """
        newest: dict[str, Entry] = {}
        for entry in self._read():
            name = entry.token_hash if isinstance(entry, Spent) else f"device {entry.device}"
            newest.pop(name, None)
            newest[name] = entry
        return list(newest.values())

    def compact(self, now: float) -> None:
        """Rewrite the file with what still matters, where much of it does not."""
        with self._lock:
            number = sum(1 for _ in self._read())
            kept = [e for e in self.entries() if not isinstance(e, Spent) or e.expires_at > now]
            if number > _MAX_LINES * len(kept):
                self._write(kept)

    def _write(self, entries: Iterable[Entry]) -> None:
        lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
        write_atomically(self._path, lines, _MODE)

    def _read(self) -> Iterator[Entry]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        for line in data.split(b"\n")[:-1]:  # what follows the last end was never whole
            try:
                yield msgspec.json.decode(line, type=Entry)
            except (msgspec.DecodeError, ValueError) as error:
                raise TrustError(
                    f"The file {self._path} is damaged.",
                    why=f"{error}.",
                    fix="Restore it together with the keys beside it.",
                ) from None
