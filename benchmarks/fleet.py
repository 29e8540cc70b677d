"""Fleet ingest in messages a second, beside a bare consumer that writes the same rows.

Both take the same telemetry batches and end with the same rows in SQLite, committed with the
same durability, as many batches a transaction. The bare consumer decodes JSON and inserts; the
fleet verifies each batch's signature, stores each record once, and signs an acknowledgement.
`ingest.signatures_share` tells what verifying and signing alone cost of that.
"""

import datetime as dt
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.measure import Row, interleave, main, quartiles, ratio_row, versions
from cloud_sync.messages import Ack, Batch, EnrollRequest, Record, RecordKind, Window, encode
from cloud_sync.sketch import Sketch
from cloud_sync.trust import PayloadType, PrivateKey, generate, key_id, open_envelope, sign
from cloud_sync.trust.identity import make_request
from fleet.db import Database, upgrade
from fleet.db.database import sqlite_url
from fleet.incarnation import HeadFile
from fleet.ingest import MAX_TOGETHER
from fleet.keys import load_or_create
from fleet.registry import Registry
from fleet.services import Caller, Services, enrollment, records
from fleet.trust import Repository

DEVICE = "bench-1"
RECORDS = 3
GOAL = 0.7


def run(quick: bool) -> list[Row]:
    """Measure ingest on SQLite."""
    messages, rounds = (400, 7) if quick else (1000, 11)
    key = generate()
    with tempfile.TemporaryDirectory() as folder:
        services = _services(Path(folder) / "fleet", key)
        public = key.public_key()
        bare = _bare_database(Path(folder) / "bare.db")
        stream = 0

        def batches() -> list[bytes]:
            nonlocal stream
            stream += 1
            return [_envelope(key, f"stream-{stream}", at) for at in range(messages)]

        def ours() -> float:
            waiting = batches()
            begun = time.perf_counter()
            for group in _groups(waiting):
                checked = [records.verify(services, DEVICE, data, public) for data in group]
                records.store(services, checked)
            return messages / (time.perf_counter() - begun)

        def peer() -> float:
            waiting = batches()
            begun = time.perf_counter()
            for group in _groups(waiting):
                _write_bare(bare, group)
            return messages / (time.perf_counter() - begun)

        measured = interleave(ours, peer, rounds)
        shares = [_signatures(key, batches()) * rate / messages for rate in measured.ours[:7]]
        services.database.close()
        bare.close()
    return [
        ratio_row(
            "ingest.sqlite_vs_bare",
            measured,
            unit="messages/s",
            peer="bare consumer",
            goal=f"at least {GOAL} x",
            at_least=GOAL,
        ),
        Row(
            metric="ingest.signatures_share",
            value=statistics.median(shares),
            unit="of ingest's time",
            spread=quartiles(shares),
            n=len(shares),
        ),
    ]


def _signatures(key: PrivateKey, envelopes: list[bytes]) -> float:
    """Seconds that verifying these and signing their acknowledgements take alone."""
    keys = {key_id(key.public_key()): key.public_key()}
    begun = time.perf_counter()
    for envelope in envelopes:
        open_envelope(envelope, keys, PayloadType.BATCH)
        sign(encode(Ack(device=DEVICE, stream="s", through=1)), PayloadType.ACK, key)
    return time.perf_counter() - begun


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


def _envelope(key: PrivateKey, stream: str, at: int) -> bytes:
    window = Window(
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
    body = msgspec.Raw(msgspec.json.encode(window))
    batch = Batch(
        device=DEVICE,
        stream=stream,
        boot_id="boot",
        records=tuple(
            Record(
                seq=at * RECORDS + i + 1,
                kind=RecordKind.TELEMETRY,
                at=1.0,
                monotonic=1.0,
                body=body,
            )
            for i in range(RECORDS)
        ),
    )
    return sign(encode(batch), PayloadType.BATCH, key)


def _groups(waiting: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [waiting[i : i + MAX_TOGETHER] for i in range(0, len(waiting), MAX_TOGETHER)]


def _bare_database(path: Path) -> sqlite3.Connection:
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


def _write_bare(database: sqlite3.Connection, group: Sequence[bytes]) -> None:
    import base64

    rows = []
    for data in group:
        payload = base64.b64decode(msgspec.json.decode(data)["payload"])
        batch = msgspec.json.decode(payload, type=Batch)
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


if __name__ == "__main__":
    main(
        "fleet",
        run,
        description="Fleet ingest in messages a second, beside a bare consumer.",
        conditions=versions("sqlalchemy", "cryptography", "msgspec")
        | {"records a message": str(RECORDS), "messages a transaction": str(MAX_TOGETHER)},
    )
