"""The device's outbox: nothing leaves it before the fleet has said that it is stored.

Telemetry, evidence and states are records in a SQLite file (WAL). A record is removed when an
`Ack` of the fleet covers it; a broker's acknowledgement is no proof. The outbox is bounded by
bytes and age: what is dropped at the bound, telemetry first, leaves a gap record, so that
every sequence number is stored, acknowledged or accounted for.

The stream's random id is made with the file: a wiped disk begins a new stream.
"""

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cloud_sync.messages import Ack, Batch, Gap, Record, RecordKind
from edgeml.errors import DeviceError

MAX_BYTES = 32 << 20
MAX_AGE_S = 30 * 86400.0
BATCH_BYTES = 128 << 10
BATCH_RECORDS = 200
RESEND_AFTER_S = 10.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL, monotonic REAL NOT NULL,
    stored REAL NOT NULL, body BLOB NOT NULL
);
"""
# Dropped first to last; gap records are never dropped, they merge instead.
_DROP_ORDER = (RecordKind.TELEMETRY, RecordKind.STATE, RecordKind.EVIDENCE)


class Outbox:
    """See the module. Safe to use from several threads.

    Args:
        path: the SQLite file.
        device: this device's id.
        boot_id: the kernel's id of this boot.
        wall: the wall clock in Unix seconds, or None while it is not known.
        max_bytes: the most bytes of record bodies that are kept.
        max_age_s: the most seconds that a record is kept.
    """

    def __init__(
        self,
        path: Path,
        device: str,
        boot_id: str,
        *,
        wall: Callable[[], float | None] = time.time,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._device = device
        self._boot_id = boot_id
        self._wall = wall
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._lock = threading.RLock()
        self._sent: dict[int, float] = {}
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise DeviceError(
                f"The outbox {path} cannot be used.",
                why=f"{error}.",
                fix="Move the file away; a new one begins a new stream.",
            ) from error
        self.stream = self._meta("stream", uuid.uuid4().hex)
        self._next = int(self._meta("next", "1"))
        self._bytes = int(
            self._db.execute("SELECT coalesce(sum(length(body)), 0) FROM records").fetchone()[0]
        )

    def append(self, kind: RecordKind, body: msgspec.Struct) -> int:
        """Store a record and return its sequence number.

        Evidence and states are on the disk when this returns; telemetry within the WAL's
        next checkpoint.
        """
        data = msgspec.json.encode(body)
        durable = kind is not RecordKind.TELEMETRY
        with self._lock, self._transaction(full=durable):
            seq = self._insert(kind, data)
            self._bound()
        return seq

    def batch(
        self, kinds: Sequence[RecordKind] = tuple(RecordKind), max_bytes: int = BATCH_BYTES
    ) -> Batch | None:
        """The oldest records of these kinds that are not on their way, as a batch to send.

        A record that was sent and not acknowledged is sent again after `RESEND_AFTER_S`.
        """
        now = time.monotonic()
        marks = ",".join("?" * len(kinds))
        with self._lock:
            rows = self._db.execute(
                f"SELECT seq, kind, at, monotonic, body FROM records "  # noqa: S608 -- only marks
                f"WHERE kind IN ({marks}) ORDER BY seq",
                [str(kind) for kind in kinds],
            )
            records: list[Record] = []
            size = 0
            for seq, kind, at, monotonic, body in rows:
                if now - self._sent.get(seq, -RESEND_AFTER_S) < RESEND_AFTER_S:
                    continue
                size += len(body) + 100
                if records and (size > max_bytes or len(records) >= BATCH_RECORDS):
                    break
                records.append(
                    Record(
                        seq=seq,
                        kind=RecordKind(kind),
                        at=at,
                        monotonic=monotonic,
                        body=msgspec.Raw(body),
                    )
                )
            for record in records:
                self._sent[record.seq] = now
        if not records:
            return None
        return Batch(
            device=self._device, stream=self.stream, boot_id=self._boot_id, records=tuple(records)
        )

    def failed(self, batch: Batch) -> None:
        """Say that a batch did not get away, so that it is sent again at once."""
        with self._lock:
            for record in batch.records:
                self._sent.pop(record.seq, None)

    def acknowledge(self, ack: Ack) -> int:
        """Remove what the fleet has stored, and return how many records that were.

        An ack of another device or stream removes nothing.
        """
        if ack.device != self._device or ack.stream != self.stream:
            return 0
        with self._lock, self._transaction():
            before = self._db.total_changes
            self._db.execute("DELETE FROM records WHERE seq <= ?", [ack.through])
            for low, high in ack.ranges:
                self._db.execute("DELETE FROM records WHERE seq BETWEEN ? AND ?", [low, high])
            removed = self._db.total_changes - before
            self._recount()
        if removed:
            with self._lock:
                self._db.execute("PRAGMA incremental_vacuum")
                kept = {row[0] for row in self._db.execute("SELECT seq FROM records")}
                self._sent = {seq: at for seq, at in self._sent.items() if seq in kept}
        return removed

    def depth(self) -> int:
        """How many records wait."""
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM records").fetchone()[0])

    def sequences(self) -> list[int]:
        """The sequence numbers that wait, in order."""
        with self._lock:
            return [row[0] for row in self._db.execute("SELECT seq FROM records ORDER BY seq")]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self, *, full: bool = False) -> Iterator[None]:
        if full:
            self._db.execute("PRAGMA synchronous=FULL")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise DeviceError(
                "The outbox cannot be written.", why=f"{error}.", fix="Check the disk."
            ) from error
        finally:
            if full:
                self._db.execute("PRAGMA synchronous=NORMAL")

    def _insert(self, kind: RecordKind, data: bytes) -> int:
        seq = self._next
        self._db.execute(
            "INSERT INTO records (seq, kind, at, monotonic, stored, body) VALUES (?,?,?,?,?,?)",
            [seq, str(kind), self._wall(), time.monotonic(), time.time(), data],
        )
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'next'", [str(seq + 1)])
        self._next = seq + 1
        self._bytes += len(data)
        return seq

    def _bound(self) -> None:
        """Drop at the bound, oldest and of least value first, and account for it."""
        oldest = time.time() - self._max_age_s
        dropped = [
            row[0]
            for row in self._db.execute(
                "SELECT seq FROM records WHERE stored < ? AND kind != 'gap'", [oldest]
            )
        ]
        self._drop(dropped, "age")
        if self._bytes <= self._max_bytes:
            return
        # Well below the bound, so that not every append has to drop again.
        target = self._max_bytes * 9 // 10
        for kind in _DROP_ORDER:
            victims: list[int] = []
            excess = self._bytes - target
            for seq, size in self._db.execute(
                "SELECT seq, length(body) FROM records WHERE kind = ? ORDER BY seq", [str(kind)]
            ):
                if excess <= 0:
                    break
                victims.append(seq)
                excess -= size
            self._drop(victims, "bytes")
            if self._bytes <= self._max_bytes:
                return

    def _drop(self, seqs: list[int], reason: str) -> None:
        if not seqs:
            return
        gone = set(seqs)
        # Gap records that wait are taken into the new ones, their own numbers with them, so
        # that a long absence leaves a few wide gaps and not a record for every drop.
        for seq, body in self._db.execute("SELECT seq, body FROM records WHERE kind = 'gap'"):
            old = msgspec.json.decode(body, type=Gap)
            gone |= {seq, *range(old.first, old.last + 1)}
        self._db.executemany("DELETE FROM records WHERE seq = ?", [[seq] for seq in gone])
        for first, last in runs(sorted(gone)):
            gap = Gap(first=first, last=last, dropped=last - first + 1, reason=reason)
            self._insert(RecordKind.GAP, msgspec.json.encode(gap))
        self._recount()

    def _recount(self) -> None:
        self._bytes = int(
            self._db.execute("SELECT coalesce(sum(length(body)), 0) FROM records").fetchone()[0]
        )

    def _meta(self, key: str, default: str) -> str:
        self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", [key, default])
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
        return str(row[0])


def runs(seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted numbers as inclusive ranges.

    >>> runs([1, 2, 3, 7, 9, 10])
    [(1, 3), (7, 7), (9, 10)]
    """
    found: list[tuple[int, int]] = []
    for seq in sorted(seqs):
        if found and seq == found[-1][1] + 1:
            found[-1] = (found[-1][0], seq)
        else:
            found.append((seq, seq))
    return found
