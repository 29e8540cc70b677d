"""Fleet ingest in records a second, beside a bare consumer that writes the same rows.

Both take the same telemetry batches and end with the same rows in SQLite, committed with the
same durability, as many batches a transaction. The bare consumer decodes JSON and inserts; the
fleet takes each from its queue, verifies its signature, stores each record once, and signs an
acknowledgement. `ingest.sqlite_vs_bare` has as many records a message as a device with three
sources, `ingest.backlog_vs_bare` as one that was away: there one signature stands for many.
"""

import datetime as dt
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.measure import Row, interleave, main, quartiles, ratio_row, versions
from benchmarks.sync_outbox import window
from cloud_sync.messages import (
    Batch,
    EnrollRequest,
    Record,
    RecordKind,
    Up,
    Window,
    encode,
    topic,
)
from cloud_sync.trust import PayloadType, PrivateKey, generate, key_id, open_envelope, sign
from cloud_sync.trust.identity import make_request
from fleet.db import Database, upgrade
from fleet.db.database import sqlite_url
from fleet.incarnation import HeadFile
from fleet.ingest import MAX_TOGETHER, Ingest
from fleet.keys import load_or_create
from fleet.registry import Registry
from fleet.services import Caller, Services, enrollment
from fleet.trust import Repository

DEVICE = "bench-1"
RECORDS = 3
BACKLOG_RECORDS = 150
GOAL = 0.7


def run(quick: bool) -> Iterator[Row]:
    """Measure ingest on SQLite: messages as they come, and a backlog in full batches."""
    rounds = 7 if quick else 11
    with tempfile.TemporaryDirectory() as folder:
        site = _Site(Path(folder))
        for metric, messages, records in (
            ("ingest.sqlite_vs_bare", 400 if quick else 1000, RECORDS),
            ("ingest.backlog_vs_bare", 60 if quick else 200, BACKLOG_RECORDS),
        ):
            measured = interleave(
                lambda m=messages, r=records: site.ours(m, r),  # type: ignore[misc]
                lambda m=messages, r=records: site.bare(m, r),  # type: ignore[misc]
                rounds,
            )
            yield ratio_row(
                metric,
                measured,
                unit="records/s",
                peer=f"bare consumer, {records} records a message",
                goal=f"at least {GOAL} x",
                at_least=GOAL,
            )
            if metric == "ingest.sqlite_vs_bare":
                rate = statistics.median(measured.ours) / records
                shares = [site.signatures(messages, records) * rate for _ in range(7)]
        site.close()
    yield Row(
        metric="ingest.signatures_share",
        value=statistics.median(shares),
        unit="of a core while it ingests",
        spread=quartiles(shares),
        n=len(shares),
    )


class _Site:
    """A fleet's services with one device, and the bare consumer's database."""

    def __init__(self, folder: Path) -> None:
        self._key = generate()
        self._services = _services(folder / "fleet", self._key)
        self._bare = bare_database(folder / "bare.db")
        self._streams = 0

    def close(self) -> None:
        self._services.database.close()
        self._bare.close()

    def ours(self, messages: int, records: int) -> float:
        """Records a second through the ingest's queue, until the last is stored."""
        waiting = [
            sign(data, PayloadType.BATCH, self._key) for data in self._batches(messages, records)
        ]
        ingest = Ingest(self._services)
        name = topic(DEVICE, Up.TELEMETRY)
        begun = time.perf_counter()
        ingest.start()
        for envelope in waiting:
            ingest.on_message(name, envelope)
        ingest.stop()
        return messages * records / (time.perf_counter() - begun)

    def bare(self, messages: int, records: int) -> float:
        """Records a second of the consumer that only decodes and inserts."""
        waiting = self._batches(messages, records)
        begun = time.perf_counter()
        for at in range(0, len(waiting), MAX_TOGETHER):
            write_bare(self._bare, waiting[at : at + MAX_TOGETHER])
        return messages * records / (time.perf_counter() - begun)

    def signatures(self, messages: int, records: int) -> float:
        """Seconds that verifying a message takes on one core."""
        waiting = self._signed(messages, records)
        public = self._key.public_key()
        keys = {key_id(public): public}
        begun = time.perf_counter()
        for envelope in waiting:
            open_envelope(envelope, keys, PayloadType.BATCH)
        return (time.perf_counter() - begun) / messages

    def _signed(self, messages: int, records: int) -> list[bytes]:
        batches = self._batches(messages, records)
        return [sign(data, PayloadType.BATCH, self._key) for data in batches]

    def _batches(self, messages: int, records: int) -> list[bytes]:
        self._streams += 1
        return [_batch(f"stream-{self._streams}", at, records) for at in range(messages)]


def _services(data: Path, key: PrivateKey) -> Services:
    keys = load_or_create(data, dt.datetime.now(dt.UTC))
    database = Database(sqlite_url(data / "fleet.db"))
    upgrade(database)
    services = Services(
        database=database,
        keys=keys,
        registry=Registry(data / "registry"),
        head=HeadFile(data / "keys" / "head.json"),
        trust=Repository(data / "trust", time.time),
    )
    token = enrollment.create_token(services, Caller("benchmark"), DEVICE, {})["token"]
    enrollment.enroll(services, EnrollRequest(token=token, csr=make_request(DEVICE, key)))
    return services


def _batch(stream: str, at: int, records: int) -> bytes:
    body = msgspec.Raw(msgspec.json.encode(window()))
    batch = Batch(
        device=DEVICE,
        stream=stream,
        boot_id="boot",
        records=tuple(
            Record(
                seq=at * records + i + 1,
                kind=RecordKind.TELEMETRY,
                at=1.0,
                monotonic=1.0,
                body=body,
            )
            for i in range(records)
        ),
    )
    return encode(batch)


def bare_database(path: Path) -> sqlite3.Connection:
    """A table like the fleet's, with its indices and its durability."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute(
        "CREATE TABLE records (id INTEGER PRIMARY KEY, device TEXT, stream TEXT, seq INTEGER, "
        "kind TEXT, model TEXT, release TEXT, at REAL, received_at REAL, body BLOB, "
        "UNIQUE (device, stream, seq))"
    )
    # The same indices as the fleet's table.
    database.execute("CREATE INDEX by_device ON records (device, kind, id)")
    database.execute("CREATE INDEX by_model ON records (model, kind, id)")
    return database


def write_bare(database: sqlite3.Connection, group: Sequence[bytes]) -> int:
    """Insert the records of some batches in one transaction; returns how many there were."""
    rows = []
    for data in group:
        batch = msgspec.json.decode(data, type=Batch)
        for record in batch.records:
            window = msgspec.json.decode(record.body, type=Window)
            rows.append(
                (
                    batch.device,
                    batch.stream,
                    record.seq,
                    record.kind,
                    window.model,
                    window.release,
                    record.at,
                    time.time(),
                    bytes(record.body),
                )
            )
    database.execute("BEGIN IMMEDIATE")
    database.executemany(
        "INSERT INTO records (device, stream, seq, kind, model, release, at, received_at, body) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    database.execute("COMMIT")
    return len(rows)


if __name__ == "__main__":
    main(
        "fleet",
        run,
        description="Fleet ingest in records a second, beside a bare consumer.",
        conditions=versions("sqlalchemy", "cryptography", "msgspec")
        | {"messages a transaction": str(MAX_TOGETHER)},
    )
