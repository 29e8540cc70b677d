"""The device's outbox in records a second, beside raw SQLite.

Both put the same JSON bodies into a table of the same columns, as many a transaction, in WAL with
`synchronous=NORMAL`, into a file that is new in each round. The outbox also numbers them durably,
counts their bytes, and keeps its bounds.
"""

import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.measure import Row, interleave, ratio_row
from cloud_sync.messages import RecordKind, Window
from cloud_sync.outbox import Outbox
from cloud_sync.sketch import Sketch

TOGETHER = 200
GOAL = 0.67
_TABLE = (
    "CREATE TABLE records (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, boot TEXT NOT NULL, "
    "at REAL, monotonic REAL NOT NULL, stored REAL NOT NULL, body BLOB NOT NULL)"
)


def window() -> Window:
    """A window of telemetry as a device with one camera sends it, half a kilobyte."""
    return Window(
        model="digits",
        source="belt",
        release="sha256:" + "0" * 64,
        variant="sha256:" + "1" * 64,
        seconds=10,
        accepted=100,
        replaced=0,
        inferred=100,
        classes={str(digit): 10 for digit in range(10)},
        latency={"inference": Sketch.of([1.0, 2.0, 3.0])},
    )


def rows(quick: bool) -> Iterator[Row]:
    """Measure appending in batches."""
    records, rounds = (20_000, 7) if quick else (100_000, 11)
    body = msgspec.json.encode(window())
    batches = records // TOGETHER
    with tempfile.TemporaryDirectory() as folder:
        number = 0

        def fresh() -> Path:
            nonlocal number
            number += 1
            return Path(folder) / f"{number}.db"

        def ours() -> float:
            outbox = Outbox(fresh(), "bench-1", "boot", max_bytes=1 << 40)
            batch = [(RecordKind.TELEMETRY, msgspec.Raw(body))] * TOGETHER
            begun = time.perf_counter()
            for _ in range(batches):
                outbox.extend(batch)
            seconds = time.perf_counter() - begun
            outbox.close()
            return records / seconds

        def peer() -> float:
            with contextlib.closing(_raw(fresh())) as database:
                begun = time.perf_counter()
                for index in range(batches):
                    _insert(database, index * TOGETHER + 1, body)
                return records / (time.perf_counter() - begun)

        measured = interleave(ours, peer, rounds)
    yield ratio_row(
        "outbox.throughput_vs_sqlite",
        measured,
        unit="records/s",
        peer=f"SQLite, {TOGETHER} a transaction",
        goal=f"at least {GOAL} x",
        at_least=GOAL,
    )


def _raw(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute(_TABLE)
    return database


def _insert(database: sqlite3.Connection, first: int, body: bytes) -> None:
    at, now = time.time(), time.monotonic()
    database.execute("BEGIN IMMEDIATE")
    database.executemany(
        "INSERT INTO records VALUES (?,?,?,?,?,?,?)",
        [(seq, "telemetry", "boot", at, now, now, body) for seq in range(first, first + TOGETHER)],
    )
    database.execute("COMMIT")
