"""Sessions: many may read, one writes.

SQLite takes one writer at a time. Here writers of this process queue on a lock, and each
transaction is begun as a writing one (BEGIN IMMEDIATE), so that none fails half-way because
another came first. On PostgreSQL the database itself orders them and the lock is left out.
"""

import copy
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from edgeml.errors import RemoteError, UserError

if TYPE_CHECKING:
    from psycopg import Connection as Direct

_BUSY_MS = 10_000
# Of a connection that is kept: a dead network is known within seconds.
_WATCHED: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}


def sqlite_url(file: Path) -> str:
    """The database URL of a file."""
    return f"sqlite:///{file}"


class Database:
    """Opens sessions on one database.

    Args:
        url: a SQLAlchemy URL; `sqlite:///...` or `postgresql+psycopg://...`.

    Attributes:
        check: comes first in every writing session; see `guarded`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self.engine = _engine(url)
        except (ArgumentError, SQLAlchemyError, ModuleNotFoundError) as error:
            raise UserError(
                "The fleet's database cannot be opened.",
                why=f"{error}.",
                fix="Write --database sqlite:////path/file.db, or postgresql+psycopg://host/name "
                "after pip install edgeml[postgres].",
            ) from None
        self._writer = threading.RLock() if self.is_sqlite else nullcontext()
        self.check: Callable[[Session], None] = lambda _session: None

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed at the end, or rolled back on an error."""
        with self._writer, Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={"writes": True})
            self.check(session)
            yield session
            session.commit()

    def guarded(self, check: Callable[[Session], None]) -> Self:
        """The same database, where `check` comes first in every writing session.

        What it raises ends the session before anything is written; what it locks is held until
        the commit.
        """
        made = copy.copy(self)
        made.check = check
        return made

    @contextmanager
    def direct(self, name: str) -> "Iterator[Direct]":
        """A connection of its own to a PostgreSQL, each statement a transaction.

        Args:
            name: what the server's `pg_stat_activity` shows.

        Raises:
            RemoteError: the server cannot be reached, or was lost within the block.
        """
        import psycopg

        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            with psycopg.connect(
                url, autocommit=True, application_name=name, **_WATCHED
            ) as connection:
                yield connection
        except psycopg.Error as error:
            raise RemoteError(
                "The fleet's database does not answer.",
                why=f"{str(error).strip().rstrip('.')}.",
                fix="It is tried again; look at the server's log where that lasts.",
            ) from error

    def one_at_a_time(self, session: Session, what: str) -> None:
        """Wait for the other writing sessions that are at the same thing; until the commit.

        On SQLite there is one writing session anyway.
        """
        if not self.is_sqlite:
            session.execute(select(func.pg_advisory_xact_lock(zlib.crc32(what.encode()))))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _make_private(file: str | None) -> None:
    """Make a database's file for its owner alone; SQLite gives its log the same rights."""
    if file and file != ":memory:":
        with suppress(OSError):  # a folder that is not there is told of by SQLite
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url)
    _make_private(engine.url.database)

    # Python's sqlite3 begins transactions by its own rules; SQLAlchemy documents this cure.
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # An ack says that records are stored: that must survive a power cut.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
