"""The device's outbox: nothing leaves it before the fleet has said that it is stored.

Telemetry, evidence and states are records in a SQLite file (WAL). A record is removed when an
`Ack` of the fleet covers it; a broker's acknowledgement is no proof. The outbox is bounded by
bytes and age: what is dropped at the bound, telemetry first, leaves a gap record, so that
every sequence number is stored, acknowledged or accounted for.

The stream's random id is made with the file: a wiped disk begins a new stream, and so does a
damaged file, which is moved aside. Within a stream
a number is never used twice, not even after a power loss: what is handed out in a batch is on
the disk first. Age is the time that this device has run since, by the monotonic clock: a wall
clock that jumps, as on a board without a battery, costs no record. A record of this boot gets
its date when it is handed out, by then the fleet may have told the time.
"""

import contextlib
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from cloud_sync.dating import Dating, wall_clock
from cloud_sync.messages import MAX_MESSAGE_BYTES, Ack, Batch, Gap, Record, RecordKind
from edgeml.errors import DeviceError

log = logging.getLogger(__name__)

MAX_BYTES = 32 << 20
MAX_AGE_S = 30 * 86400.0
MAX_RECORD_BYTES = MAX_MESSAGE_BYTES // 2
BATCH_BYTES = 128 << 10
BATCH_RECORDS = 200
RESEND_AFTER_S = 10.0

_RECORD_OVERHEAD = 100
_MAX_SEQ = (1 << 63) - 1
_MAX_SKIP = 1 << 32
_FREE_PAGES = 32  # fewer are kept for the next records, flash wears
_WAL_BYTES = 1 << 20
_SCHEMA_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, boot TEXT NOT NULL, at REAL,
    monotonic REAL NOT NULL, stored REAL NOT NULL, body BLOB NOT NULL
);
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# Dropped first to last; gap records are never dropped, they merge instead.
_DROP_ORDER = (
    RecordKind.TELEMETRY,
    RecordKind.STATE,
    RecordKind.EVIDENCE,
    RecordKind.SECURITY,
)


class Outbox:
    """See the module. Safe to use from several threads.

    Args:
        path: the SQLite file.
        device: this device's id.
        boot_id: the kernel's id of this boot.
        wall: the wall clock in Unix seconds, or None while it is not known.
        monotonic: the monotonic clock, in seconds.
        max_bytes: the most bytes of record bodies that are kept.
        max_age_s: the most seconds that a record is kept.

    Attributes:
        stream: the stream's id.
        damaged: whether the file was found to be damaged since; opening it again mends that.

    Raises:
        DeviceError: the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        device: str,
        boot_id: str,
        *,
        wall: Callable[[], float | None] = wall_clock,
        monotonic: Callable[[], float] = time.monotonic,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._device = device
        self._boot_id = boot_id
        self._wall = wall
        self._monotonic = monotonic
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._lock = threading.RLock()
        self._dating = Dating()
        self._sent: dict[int, float] = {}  # in the order of their times
        self._cursors: dict[tuple[RecordKind, ...], int] = {}
        self.damaged = False
        try:
            try:
                ran = self._begin(path)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                _set_aside(path, error)
                ran = self._begin(path)
        except (sqlite3.Error, OSError) as error:
            raise DeviceError(
                f"The outbox {path} cannot be used.",
                why=f"{error}.",
                fix="Check the disk; moved away, the file is made anew and begins a new stream.",
            ) from error
        self._zero = monotonic() - ran
        # What the process before left is on the disk only when something says so.
        self._unsynced = True

    def _begin(self, path: Path) -> float:
        """Open the file; returns how long this device had run at its newest record."""
        self._db = _open(path)
        try:
            self.stream = self._meta("stream", uuid.uuid4().hex)
            self._meta("next", "1")
            self._bytes, ran = self._db.execute(
                "SELECT coalesce(sum(length(body)), 0), coalesce(max(stored), 0.0) FROM records"
            ).fetchone()
        except sqlite3.Error:
            self._db.close()
            raise
        return float(ran)

    def append(self, kind: RecordKind, body: msgspec.Struct) -> int:
        """Store a record and return its sequence number.

        Evidence and states are on the disk when this returns; telemetry at the latest when
        it is handed out. A body over `MAX_RECORD_BYTES` could never be sent: it is a gap.

        Raises:
            DeviceError: the disk is full or broken.
        """
        data = msgspec.json.encode(body)
        with self._lock, self._transaction(full=kind is not RecordKind.TELEMETRY):
            if len(data) > MAX_RECORD_BYTES:
                seq = self._insert(kind, b"")
                self._drop([seq], "size")
            else:
                seq = self._insert(kind, data)
            self._bound()
        return seq

    def batch(
        self, kinds: Sequence[RecordKind] = tuple(RecordKind), max_bytes: int = BATCH_BYTES
    ) -> Batch | None:
        """The oldest records of these kinds that are not on their way, as a batch to send.

        All of one boot, so that their monotonic times are of one clock. A record that was
        sent and not acknowledged is sent again after `RESEND_AFTER_S`.

        Raises:
            DeviceError: the disk is full or broken.
        """
        with self._lock:
            now = self._monotonic()
            self._expire(now)
            with self._reading():
                boot, records = self._waiting(tuple(kinds), max_bytes)
            if not records:
                return None
            if self._unsynced:
                # A number that the fleet has seen must not come back for another record.
                with self._transaction(full=True):
                    self._db.execute("UPDATE meta SET value = value WHERE key = 'next'")
            for record in records:
                self._sent[record.seq] = now
            self._cursors[tuple(kinds)] = records[-1].seq
        return Batch(device=self._device, stream=self.stream, boot_id=boot, records=tuple(records))

    def question(self) -> Batch | None:
        """An empty batch, whose ack tells the time; None once the fleet has told it."""
        with self._lock:
            if self._dating.is_known:
                return None
        return Batch(device=self._device, stream=self.stream, boot_id=self._boot_id, records=())

    def failed(self, batch: Batch) -> None:
        """Say that a batch did not get away, so that it is sent again at once."""
        with self._lock:
            self._cursors.clear()
            for record in batch.records:
                self._sent.pop(record.seq, None)

    def acknowledge(self, ack: Ack) -> int:
        """Remove what the fleet has stored, and return how many records that were.

        An ack of another device or stream removes nothing.

        Raises:
            DeviceError: the disk is full or broken.
        """
        if ack.device != self._device or ack.stream != self.stream:
            return 0
        removed = 0
        with self._lock:
            if ack.at:
                self._dating.learn(ack.at, self._monotonic())
            with self._transaction():
                for low, high in ((1, ack.through), *ack.ranges):
                    span = [max(low, 1), min(high, _MAX_SEQ)]
                    if span[1] < span[0]:
                        continue
                    self._skip(span[1])
                    for seq, size in self._db.execute(
                        "DELETE FROM records WHERE seq BETWEEN ? AND ? RETURNING seq, length(body)",
                        span,
                    ).fetchall():
                        removed += 1
                        self._bytes -= size
                        self._sent.pop(seq, None)
            if removed:
                self._free()
        return removed

    def depth(self) -> int:
        """How many records wait."""
        with self._lock, self._reading():
            return int(self._db.execute("SELECT count(*) FROM records").fetchone()[0])

    def sequences(self) -> list[int]:
        """The sequence numbers that wait, in order."""
        with self._lock, self._reading():
            return [row[0] for row in self._db.execute("SELECT seq FROM records ORDER BY seq")]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _waiting(self, kinds: tuple[RecordKind, ...], max_bytes: int) -> tuple[str, list[Record]]:
        marks = ",".join("?" * len(kinds))
        rows = self._db.execute(
            f"SELECT seq, kind, boot, at, monotonic, body FROM records "  # noqa: S608 -- only marks
            f"WHERE seq > ? AND kind IN ({marks}) ORDER BY seq",
            [self._cursors.get(kinds, 0), *map(str, kinds)],
        )
        records: list[Record] = []
        size, boot = 0, ""
        with contextlib.closing(rows):
            for seq, kind, of_boot, at, monotonic, body in rows:
                if seq in self._sent:
                    continue
                size += len(body) + _RECORD_OVERHEAD
                if records and (
                    size > max_bytes or len(records) >= BATCH_RECORDS or of_boot != boot
                ):
                    break
                boot = of_boot
                records.append(
                    Record(
                        seq=seq,
                        kind=RecordKind(kind),
                        at=self._dating.date(at, monotonic) if boot == self._boot_id else at,
                        monotonic=monotonic,
                        body=msgspec.Raw(body),
                    )
                )
        return boot, records

    def _expire(self, now: float) -> None:
        while self._sent:
            seq, at = next(iter(self._sent.items()))
            if now - at < RESEND_AFTER_S:
                return
            del self._sent[seq]
            self._cursors.clear()

    def _skip(self, seen: int) -> None:
        """Go past a number that the fleet has and this file has not yet given.

        The file is older than what was sent of it: it came back from a backup. The numbers
        in between belong to records that the fleet has.
        """
        following = int(self._meta("next", "1"))
        if following <= seen < following + _MAX_SKIP:
            log.warning(
                "the fleet has records up to %d of this stream, which ends at %d here; "
                "the outbox is an older copy of itself",
                seen,
                following - 1,
            )
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'next'", [str(seen + 1)])

    def _insert(self, kind: RecordKind, data: bytes) -> int:
        row = self._db.execute(
            "UPDATE meta SET value = value + 1 WHERE key = 'next' RETURNING value"
        ).fetchone()
        seq = int(row[0]) - 1
        now = self._monotonic()
        self._db.execute(
            "INSERT INTO records (seq, kind, boot, at, monotonic, stored, body) "
            "VALUES (?,?,?,?,?,?,?)",
            [seq, str(kind), self._boot_id, self._wall(), now, now - self._zero, data],
        )
        self._bytes += len(data)
        return seq

    def _bound(self) -> None:
        """Drop at the bound, oldest and of least value first, and account for it."""
        oldest = self._monotonic() - self._zero - self._max_age_s
        if oldest > 0:
            aged = self._db.execute(
                "SELECT seq FROM records WHERE stored < ? AND kind != 'gap'", [oldest]
            )
            self._drop([row[0] for row in aged], "age")
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
        # Gap records that wait are taken into the new ones, their own numbers with them, so
        # that a long absence leaves a few wide gaps and not a record for every drop.
        old = [
            (seq, msgspec.json.decode(body, type=Gap))
            for seq, body in self._db.execute("SELECT seq, body FROM records WHERE kind = 'gap'")
        ]
        gone = [*seqs, *(seq for seq, _ in old)]
        for seq in gone:
            (size,) = self._db.execute(
                "DELETE FROM records WHERE seq = ? RETURNING length(body)", [seq]
            ).fetchone()
            self._bytes -= size
            self._sent.pop(seq, None)
        reasons = {reason, *(r for _, gap in old for r in gap.reason.split(", "))}
        for first, last in joined([*runs(gone), *((gap.first, gap.last) for _, gap in old)]):
            gap = Gap(
                first=first,
                last=last,
                dropped=last - first + 1,
                reason=", ".join(sorted(reasons)),
            )
            self._insert(RecordKind.GAP, msgspec.json.encode(gap))

    def _free(self) -> None:
        """Give the disk back what a drained backlog had taken."""
        with self._reading():
            (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
            if free > _FREE_PAGES:
                # It yields a row without columns a page, at which `execute` stops.
                self._db.executescript("PRAGMA incremental_vacuum")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _meta(self, key: str, default: str) -> str:
        self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", [key, default])
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
        return str(row[0])

    @contextlib.contextmanager
    def _transaction(self, *, full: bool = False) -> Iterator[None]:
        """All or nothing; with `full` it is on the disk afterwards, and all before it."""
        before = self._bytes
        with self._reading():
            try:
                self._db.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._bytes = before
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
        self._unsynced = not full

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self.damaged = self.damaged or _is_damage(error)
            raise DeviceError(
                "The outbox cannot be used.", why=f"{error}.", fix="Check the disk."
            ) from error


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Inclusive ranges, sorted, with those that touch made one.

    >>> joined([(7, 9), (1, 3), (4, 5), (2, 3)])
    [(1, 5), (7, 9)]
    """
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def runs(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers as inclusive ranges.

    >>> runs([1, 2, 3, 7, 9, 10])
    [(1, 3), (7, 7), (9, 10)]
    """
    return joined((seq, seq) for seq in seqs)


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        database.execute("PRAGMA auto_vacuum=INCREMENTAL")
        database.execute("PRAGMA journal_mode=WAL").fetchall()
        database.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}").fetchall()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version != _SCHEMA_VERSION:
            if tables or version:
                raise sqlite3.DatabaseError(f"its format is version {version}, not 1")
            database.executescript(_SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def _set_aside(path: Path, error: sqlite3.Error) -> None:
    """Move a damaged file out of the way, over one that was moved before."""
    log.error("the outbox %s is damaged (%s); a new stream begins", path, error)
    path.replace(path.with_name(path.name + ".damaged"))
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
