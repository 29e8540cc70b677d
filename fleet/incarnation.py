"""Notices that the database is not the one that this fleet last wrote: a restored backup.

Beside the keys, not in the database, lies a small file: the fleet's incarnation, its epoch and
the newest entry of the audit log. At the start, each must be found in the database. Where it is
not, the database is older than what was promised to devices: rollouts freeze and the epoch of
desired states rises above all that was ever signed (`fleet.services.recovery`).
"""

from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.release import write_atomically
from edgeml.errors import TrustError
from fleet.shared_lock import SharedLock

_MODE = 0o600


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet last wrote; `audit_hash` is empty before the first entry."""

    incarnation: str
    epoch: int = 1
    audit_seq: int = 0
    audit_hash: str = ""


class HeadFile:
    """The file, replaced atomically; safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = SharedLock(path.with_suffix(".lock"))

    def read(self) -> Head | None:
        """What it says, or None on the fleet's first start.

        Raises:
            TrustError: it is damaged.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(data, type=Head)
        except (msgspec.DecodeError, ValueError) as error:
            raise TrustError(
                f"The file {self._path} is damaged.",
                why=f"{error}.",
                fix="Restore it together with the keys beside it.",
            ) from None

    def write(self, head: Head) -> None:
        """Replace it."""
        write_atomically(self._path, msgspec.json.encode(head), _MODE)

    def change(self, **fields: Any) -> None:
        """Replace some of what it says, if it is there."""
        with self._lock:
            head = self.read()
            if head is not None:
                self.write(msgspec.structs.replace(head, **fields))
