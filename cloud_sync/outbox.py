"""The device's outbox: nothing leaves it before the fleet has said that it is stored.

Telemetry, evidence and states are records in a SQLite file (WAL). A record is removed when an
`Ack` of the fleet covers it; a broker's acknowledgement is no proof. The outbox is bounded by
bytes and age: what is dropped at the bound, telemetry first, leaves a gap record, so that
every sequence number is stored, acknowledged or accounted for. The newest of what was
acknowledged is kept for a fleet that is restored from a backup (`cloud_sync.outbox_kept`).

The stream's random id is made with the file: a wiped disk begins a new stream, and so does a
damaged file, which is moved aside. Within a stream
a number is never used twice, not even after a power loss: what is handed out in a batch is on
the disk first. Age is the time that this device has run since, by the monotonic clock: a wall
clock that jumps, as on a board without a battery, costs no record. A record of this boot gets
its date when it is handed out, by then the fleet may have told the time.
"""

import contextlib
import itertools
import logging
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from cloud_sync.dating import Dating, wall_clock
from cloud_sync.messages import MAX_MESSAGE_BYTES, Ack, Batch, Gap, Record, RecordKind
from cloud_sync.outbox_file import OutboxFile
from cloud_sync.outbox_kept import Kept
from cloud_sync.ranges import joined, runs

log = logging.getLogger(__name__)

MAX_BYTES = 32 << 20
MAX_AGE_S = 30 * 86400.0
MAX_RECORD_BYTES = MAX_MESSAGE_BYTES // 2
BATCH_BYTES = 128 << 10
BATCH_RECORDS = 200
RESEND_AFTER_S = 10.0
# So much telemetry is on its way at once: a long backlog waits on the disk, not in memory.
ON_THE_WAY_BYTES = 4 << 20

_ENCODE = msgspec.json.Encoder().encode
_RECORD_OVERHEAD = 100
_KINDS = {str(kind): kind for kind in RecordKind}
_MAX_SEQ = (1 << 63) - 1
_MAX_SKIP = 1 << 32
# The last to be dropped at the bound; gap records never are, they merge instead.
_VALUED = (RecordKind.STATE, RecordKind.RESULT, RecordKind.EVIDENCE, RecordKind.SECURITY)
_DROP_ORDER = (
    *(kind for kind in RecordKind if kind not in {*_VALUED, RecordKind.GAP}),
    *_VALUED,
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
        self._sent: dict[int, tuple[float, int]] = {}  # when and how long, in that order of time
        self._on_the_way = 0
        self._cursors: dict[tuple[RecordKind, ...], int] = {}
        self._file = OutboxFile(path)
        self._db = self._file.db
        self._kept = Kept(self._file)
        self.stream = self._file.stream
        self._bytes = self._file.bytes_found
        self._zero = monotonic() - self._file.ran_s
        # What the process before left is on the disk only when something says so.
        self._unsynced = True

    @property
    def damaged(self) -> bool:
        """Whether the file was found to be damaged since; opening it again mends that."""
        return self._file.damaged

    @property
    def following(self) -> int:
        """The number that the next record gets."""
        with self._lock, self._file.reading():
            return self._file.following

    def append(self, kind: RecordKind, body: msgspec.Struct) -> int:
        """Store a record and return its sequence number.

        Evidence and states are on the disk when this returns; telemetry at the latest when
        it is handed out. A body over `MAX_RECORD_BYTES` could never be sent: it is a gap.

        Raises:
            DeviceError: the disk is full or broken.
        """
        return self.extend([(kind, body)])[0]

    def extend(self, records: Sequence[tuple[RecordKind, msgspec.Struct | msgspec.Raw]]) -> range:
        """Store records in one transaction and return their sequence numbers; else as `append`.

        A body may be JSON that is encoded already.

        Raises:
            DeviceError: the disk is full or broken; none of them is stored.
        """
        kinds = [kind for kind, _ in records]
        bodies = [_ENCODE(body) for _, body in records]
        if not bodies:
            return range(0)
        full = set(kinds) != {RecordKind.TELEMETRY}
        with self._lock, self._transaction(full=full):
            too_long = [at for at, body in enumerate(bodies) if len(body) > MAX_RECORD_BYTES]
            for at in too_long:
                bodies[at] = b""
            seqs = self._insert(kinds, bodies)
            self._drop([seqs[at] for at in too_long], "size")
            self._bound()
        return seqs

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
            if not set(kinds) & set(_VALUED) and self._on_the_way >= ON_THE_WAY_BYTES:
                return None
            with self._file.reading():
                boot, records = self._waiting(tuple(kinds), max_bytes)
                if not records:
                    # Nobody looks through a backlog of other kinds again and again.
                    self._cursors[tuple(kinds)] = self._file.following - 1
                    return None
            if self._unsynced:
                # A number that the fleet has seen must not come back for another record.
                with self._transaction(full=True):
                    self._db.execute("UPDATE meta SET value = value WHERE key = 'next'")
            for record in records:
                size = memoryview(record.body).nbytes
                self._sent[record.seq] = (now, size)
                self._on_the_way += size
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
                self._forget_sent(record.seq)

    def resend(self) -> None:
        """Have all that was sent and not acknowledged sent again at once, by another way."""
        with self._lock:
            self._sent.clear()
            self._on_the_way = 0
            self._cursors.clear()

    def acknowledge(self, ack: Ack) -> int:
        """Remove what the fleet has stored, and return how many records that were.

        What a fleet has lost that had it, as one restored from a backup, waits again.
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
            with self._transaction(full=False):
                for low, high in ((1, ack.through), *ack.ranges):
                    span = [max(low, 1), min(high, _MAX_SEQ)]
                    if span[1] < span[0]:
                        continue
                    self._skip(span[1])
                    removed += self._remove(span)
                if lost := self._kept.lost(ack):
                    self._bytes += lost
                    self._cursors.clear()
            if removed:
                self._file.free()
        return removed

    def _remove(self, span: list[int]) -> int:
        number, size = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) "
            "FROM records WHERE seq BETWEEN ? AND ?",
            span,
        ).fetchone()
        if number:
            self._kept.take(span)
            self._db.execute("DELETE FROM records WHERE seq BETWEEN ? AND ?", span)
            self._bytes -= size
            for seq in [seq for seq in self._sent if span[0] <= seq <= span[1]]:
                self._forget_sent(seq)
        return int(number)

    def depth(self) -> int:
        """How many records wait."""
        with self._lock, self._file.reading():
            return int(self._db.execute("SELECT count(*) FROM records").fetchone()[0])

    def sequences(self) -> list[int]:
        """The sequence numbers that wait, in order."""
        with self._lock, self._file.reading():
            return [row[0] for row in self._db.execute("SELECT seq FROM records ORDER BY seq")]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

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
                        kind=_KINDS[kind],
                        at=self._dating.date(at, monotonic) if boot == self._boot_id else at,
                        monotonic=monotonic,
                        body=msgspec.Raw(body),
                    )
                )
        return boot, records

    def _expire(self, now: float) -> None:
        while self._sent:
            seq, (at, _) = next(iter(self._sent.items()))
            if now - at < RESEND_AFTER_S:
                return
            self._forget_sent(seq)
            self._cursors.clear()

    def _forget_sent(self, seq: int) -> None:
        self._on_the_way -= self._sent.pop(seq, (0.0, 0))[1]

    def _skip(self, seen: int) -> None:
        """Go past a number that the fleet has and this file has not yet given.

        The file is older than what was sent of it: it came back from a backup. The numbers
        in between belong to records that the fleet has.
        """
        following = self._file.following
        if following <= seen < following + _MAX_SKIP:
            log.warning(
                "the fleet has records up to %d of this stream, which ends at %d here; "
                "the outbox is an older copy of itself",
                seen,
                following - 1,
            )
            self._file.following = seen + 1

    def _insert(self, kinds: Sequence[RecordKind], bodies: Sequence[bytes]) -> range:
        first = self._file.following
        seqs = range(first, first + len(bodies))
        self._file.following = seqs.stop
        at, now = self._wall(), self._monotonic()
        stored, boot = now - self._zero, self._boot_id
        self._db.executemany(
            "INSERT INTO records (seq, kind, boot, at, monotonic, stored, body) "
            "VALUES (?,?,?,?,?,?,?)",
            [
                (seq, kind, boot, at, now, stored, body)
                for seq, kind, body in zip(seqs, map(str, kinds), bodies, strict=True)
            ],
        )
        self._bytes += sum(map(len, bodies))
        return seqs

    def _bound(self) -> None:
        """Drop at the bound, oldest and of least value first, and account for it."""
        self._drop(self._aged(), "age")
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

    def _aged(self) -> list[int]:
        """The records that are too old: the first ones, for their ages fall with their numbers."""
        oldest = self._monotonic() - self._zero - self._max_age_s
        if oldest <= 0:
            return []
        rows = self._db.execute("SELECT seq, stored FROM records WHERE kind != 'gap' ORDER BY seq")
        with contextlib.closing(rows):
            return [seq for seq, _ in itertools.takewhile(lambda row: row[1] < oldest, rows)]

    def _drop(self, seqs: list[int], reason: str) -> None:
        """Drop these, which are in order, and leave gaps that say so."""
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
            self._forget_sent(seq)
        reasons = {reason, *(r for _, gap in old for r in gap.reason.split(", "))}
        for first, last in joined([*runs(gone), *((gap.first, gap.last) for _, gap in old)]):
            gap = Gap(
                first=first,
                last=last,
                dropped=bisect_right(seqs, last)
                - bisect_left(seqs, first)
                + sum(gap.dropped for _, gap in old if first <= gap.first <= last),
                reason=", ".join(sorted(reasons)),
            )
            self._insert([RecordKind.GAP], [_ENCODE(gap)])

    @contextlib.contextmanager
    def _transaction(self, *, full: bool) -> Iterator[None]:
        before = self._bytes
        try:
            with self._file.transaction(full=full):
                yield
        except BaseException:
            self._bytes = before
            raise
        self._unsynced = not full
