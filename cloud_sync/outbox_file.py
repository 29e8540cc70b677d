"""The SQLite file under the outbox: how it is opened, how durable a commit is, what it gives back.

WAL, so that a commit appends to one file. With NORMAL a commit survives the process and with
FULL the power, too; FULL takes every commit before it along. Deleted rows give their pages back
to the disk, and the WAL is cut to a bound.
"""

import contextlib
import logging
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

from edgeml.errors import DeviceError

log = logging.getLogger(__name__)

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
# Since a later version, so that an older file gets it when it is opened.
_KEPT = """
CREATE TABLE IF NOT EXISTS kept (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, boot TEXT NOT NULL, at REAL,
    monotonic REAL NOT NULL, stored REAL NOT NULL, body BLOB NOT NULL
)
"""
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class OutboxFile:
    """See the module. Not safe to use from several threads at once.

    Attributes:
        db: the connection, which begins no transaction by itself.
        stream: the random id that was made with the file.
        damaged: whether the file was found to be damaged since; opening it again mends that.
        bytes_found: the bytes of all records' bodies when it was opened.
        ran_s: how long this device had run at the newest record, in seconds.

    Raises:
        DeviceError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.damaged = False
        self._full: bool | None = None
        try:
            try:
                self._begin(path)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                _set_aside(path, error)
                self._begin(path)
        except (sqlite3.Error, OSError) as error:
            raise DeviceError(
                f"The outbox {path} cannot be used.",
                why=f"{error}.",
                fix="Check the disk; moved away, the file is made anew and begins a new stream.",
            ) from error

    def _begin(self, path: Path) -> None:
        self.db = _open(path)
        try:
            self.db.execute(_KEPT)
            self.stream = self._meta("stream", uuid.uuid4().hex)
            self._meta("next", "1")
            self.bytes_found, self.ran_s = self.db.execute(
                "SELECT coalesce(sum(length(body)), 0), coalesce(max(stored), 0.0) FROM records"
            ).fetchone()
        except sqlite3.Error:
            self.db.close()
            raise

    def _meta(self, key: str, default: str) -> str:
        self.db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", [key, default])
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
        return str(row[0])

    @property
    def following(self) -> int:
        """The number that the next record gets."""
        (value,) = self.db.execute("SELECT value FROM meta WHERE key = 'next'").fetchone()
        return int(value)

    @following.setter
    def following(self, seq: int) -> None:
        self.db.execute("UPDATE meta SET value = ? WHERE key = 'next'", [str(seq)])

    @contextlib.contextmanager
    def transaction(self, *, full: bool) -> Iterator[None]:
        """All or nothing; with `full` it is on the disk afterwards, and all before it.

        Raises:
            DeviceError: the disk is full or broken; nothing of it was done.
        """
        with self.reading():
            try:
                if full != self._full:
                    self.db.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
                    self._full = full
                self.db.execute("BEGIN IMMEDIATE")
                yield
                self.db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Turn what SQLite raises into what a caller expects, and remember damage.

        Raises:
            DeviceError: the disk is full or broken.
        """
        try:
            yield
        except sqlite3.Error as error:
            self.damaged = self.damaged or _is_damage(error)
            raise DeviceError(
                "The outbox cannot be used.", why=f"{error}.", fix="Check the disk."
            ) from error

    def free(self) -> None:
        """Give the disk back what a drained backlog had taken, once that is most of the file."""
        with self.reading():
            (free,) = self.db.execute("PRAGMA freelist_count").fetchone()
            (pages,) = self.db.execute("PRAGMA page_count").fetchone()
            if free > max(_FREE_PAGES, pages // 2):
                # It yields a row without columns a page, at which `execute` stops.
                self.db.executescript("PRAGMA incremental_vacuum")
                self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file."""
        self.db.close()


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
