"""The bare consumer's store: the fleet's table, indices and durability, on the driver alone."""

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.messages import Batch, Window

_COLUMNS = "device, stream, seq, kind, model, release, at, received_at, body"


class Bare:
    """A table like the fleet's, with its indices and its durability, on the bare driver."""

    def __init__(
        self, connection: Any, insert: Callable[[Any, list[tuple[Any, ...]]], None]
    ) -> None:
        self._connection = connection
        self._insert = insert

    def write(self, group: Sequence[bytes]) -> int:
        """Insert the records of some batches in one transaction; returns how many there were."""
        found = rows_of(group)
        self._insert(self._connection, found)
        return len(found)

    def close(self) -> None:
        """Close it."""
        self._connection.close()


def rows_of(group: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """The rows of some batches' records."""
    found = []
    for data in group:
        batch = msgspec.json.decode(data, type=Batch)
        for record in batch.records:
            said = msgspec.json.decode(record.body, type=Window)
            found.append(
                (
                    batch.device,
                    batch.stream,
                    record.seq,
                    record.kind,
                    said.model,
                    said.release,
                    record.at,
                    time.time(),
                    bytes(record.body),
                )
            )
    return found


def bare_store(url: str) -> Bare:
    """The bare consumer's database, beside the fleet's."""
    if not url.startswith("sqlite"):
        return Bare(_bare_postgresql(url), _copy)
    return Bare(bare_database(Path(url.removeprefix("sqlite:///")).with_suffix(".bare")), _execute)


def bare_database(path: Path) -> sqlite3.Connection:
    """A table like the fleet's in SQLite."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
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
    database.execute("CREATE INDEX by_time ON records (received_at)")
    return database


def write_bare(database: sqlite3.Connection, group: Sequence[bytes]) -> int:
    """Insert the records of some batches in one transaction; returns how many there were."""
    return Bare(database, _execute).write(group)


def _execute(database: sqlite3.Connection, found: list[tuple[Any, ...]]) -> None:
    database.execute("BEGIN IMMEDIATE")
    database.executemany(
        f"INSERT INTO records ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        found,
    )
    database.execute("COMMIT")


def _bare_postgresql(url: str) -> Any:
    import psycopg

    connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
    connection.execute(
        "CREATE TABLE bare (id BIGSERIAL PRIMARY KEY, device VARCHAR(64), stream VARCHAR(128), "
        "seq BIGINT, kind VARCHAR(16), model VARCHAR(128), release VARCHAR(71), "
        "at DOUBLE PRECISION, received_at DOUBLE PRECISION, body BYTEA, "
        "UNIQUE (device, stream, seq))"
    )
    for name, columns in (
        ("d", "device, kind, id"),
        ("m", "model, kind, id"),
        ("t", "received_at"),
    ):
        connection.execute(f"CREATE INDEX bare_{name} ON bare ({columns})".encode())
    return connection


def _copy(connection: Any, found: list[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY bare ({_COLUMNS}) FROM STDIN") as copy:
        for row in found:
            copy.write_row(row)
