"""Alembic's entry: runs migrations on the engine that `fleet.db.migrate` hands over."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import context
from sqlalchemy import Connection, Engine

from fleet.db.tables import Table


@contextmanager
def unreferenced(connection: Connection) -> Iterator[None]:
    """Let SQLite replace tables that others refer to; what refers to nothing then is an error."""
    if connection.dialect.name != "sqlite":
        yield
        return
    # Within a transaction it says nothing.
    raw = connection.connection.cursor()
    raw.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        raw.execute("PRAGMA foreign_keys=ON")
        raw.close()


def check(connection: Connection) -> None:
    """Refuse, before the commit, rows that refer to nothing."""
    if connection.dialect.name == "sqlite":
        lost = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        assert not lost, f"rows that refer to nothing: {lost[:5]}"


def run() -> None:
    """Run the migrations, or compare the tables with the database."""
    engine: Engine = context.config.attributes["engine"]
    with engine.connect() as connection, unreferenced(connection):
        connection.execution_options(writes=True)
        context.configure(
            connection=connection,
            target_metadata=Table.metadata,
            compare_type=True,
            render_as_batch=True,
            # SQLite can, with `fleet.db.database`: a migration is done wholly or not at all.
            transactional_ddl=True,
        )
        with context.begin_transaction():
            context.run_migrations()
            check(connection)


run()
