"""Sessions: many may read, one writes.

SQLite takes one writer at a time. Here writers of this process queue on a lock, and each
transaction is begun as a writing one (BEGIN IMMEDIATE), so that none fails half-way because
another came first. On PostgreSQL the database itself orders them and the lock is left out.
"""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from edgeml.errors import UserError

_BUSY_MS = 10_000


def sqlite_url(file: Path) -> str:
    """The database URL of a file."""
    return f"sqlite:///{file}"


class Database:
    """Opens sessions on one database.

    Args:
        url: a SQLAlchemy URL; `sqlite:///...` or `postgresql+psycopg://...`.
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
            yield session
            session.commit()

    def one_at_a_time(self, session: Session, what: str) -> None:
        """Wait for the other writing sessions that are at the same thing; until the commit.

        On SQLite there is one writing session anyway.
        """
        if not self.is_sqlite:
            session.execute(select(func.pg_advisory_xact_lock(zlib.crc32(what.encode()))))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url)

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
