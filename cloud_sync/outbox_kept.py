"""Acknowledged records, kept for a while: a fleet that comes back from a backup gets them again.

An acknowledgement says all that the fleet has of the stream. One that was made later than the
last and has less than that means that the fleet has lost what it had: what is kept of it waits
again in the outbox, under its old numbers. The newest `KEPT_BYTES` are kept.
"""

import logging

from cloud_sync.messages import Ack
from cloud_sync.outbox_file import OutboxFile

log = logging.getLogger(__name__)

KEPT_BYTES = 256 << 10
_OVERHEAD = 100
_COLUMNS = "seq, kind, boot, at, monotonic, stored, body"


class Kept:
    """See the module; every call is part of a transaction of the file."""

    def __init__(self, file: OutboxFile) -> None:
        self._db = file.db
        (self._bytes,) = self._db.execute(
            f"SELECT coalesce(sum(length(body) + {_OVERHEAD}), 0) FROM kept"  # noqa: S608
        ).fetchone()
        self._told_at = 0.0

    def take(self, span: list[int]) -> None:
        """Keep the newest of what an acknowledgement is about to remove."""
        room = KEPT_BYTES
        first = span[1] + 1
        for seq, size in self._db.execute(
            "SELECT seq, length(body) FROM records WHERE seq BETWEEN ? AND ? ORDER BY seq DESC",
            span,
        ):
            room -= size + _OVERHEAD
            if room < 0:
                break
            first = seq
        self._db.execute(
            f"INSERT OR REPLACE INTO kept SELECT {_COLUMNS} FROM records "  # noqa: S608
            "WHERE seq BETWEEN ? AND ?",
            [first, span[1]],
        )
        self._bytes += KEPT_BYTES - max(room, 0)
        if self._bytes > 2 * KEPT_BYTES:
            self._trim()

    def lost(self, ack: Ack) -> int:
        """Put back what the fleet has had and has no more; returns the bytes of the bodies."""
        if ack.at <= self._told_at:
            return 0  # made before the last one, and late
        self._told_at = ack.at
        gone = [
            (seq, size)
            for seq, size in self._db.execute(
                "SELECT seq, length(body) FROM kept WHERE seq > ?", [ack.through]
            )
            if not any(low <= seq <= high for low, high in ack.ranges)
        ]
        if not gone:
            return 0
        for seq, _ in gone:
            self._db.execute(
                f"INSERT OR IGNORE INTO records SELECT {_COLUMNS} FROM kept "  # noqa: S608
                "WHERE seq = ?",
                [seq],
            )
            self._db.execute("DELETE FROM kept WHERE seq = ?", [seq])
        log.warning("the fleet has lost %d records that it had; they are sent again", len(gone))
        return sum(size for _, size in gone)

    def _trim(self) -> None:
        kept = 0
        for seq, size in self._db.execute(
            "SELECT seq, length(body) FROM kept ORDER BY seq DESC"
        ).fetchall():
            kept += size + _OVERHEAD
            if kept > KEPT_BYTES:
                self._db.execute("DELETE FROM kept WHERE seq <= ?", [seq])
                kept -= size + _OVERHEAD
                break
        self._bytes = kept
