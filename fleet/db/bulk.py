"""Many rows at once: neither the object mapper nor the compiler looks at each of them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from fleet.db.tables import Table

Values = tuple[Any, ...]


def insert_rows(
    session: Session, table: type[Table], columns: Sequence[str], rows: Sequence[Values]
) -> None:
    """Insert rows, with COPY where the database has it; no defaults are filled in.

    Raises:
        DBAPIError: the database refuses one; then none is in.
    """
    if not rows:
        return
    into = _into(session, table, columns)
    if session.connection().dialect.name == "postgresql":
        _copy(session, f"COPY {into} FROM STDIN", rows)
        return
    marks = ", ".join("?" * len(columns))
    statement = f"INSERT INTO {into} VALUES ({marks})"  # noqa: S608 -- our own names
    session.connection().exec_driver_sql(statement, list(rows))


def upsert_rows(
    session: Session,
    table: type[Table],
    columns: Sequence[str],
    rows: Sequence[Values],
    changes: Sequence[str],
) -> None:
    """Insert rows; of those whose primary key is known, replace the `changes`."""
    if not rows:
        return
    quote = session.connection().dialect.identifier_preparer.quote
    keys = ", ".join(quote(column.name) for column in table.__table__.primary_key)
    changed = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in changes)
    mark = "?" if session.connection().dialect.name == "sqlite" else "%s"
    marks = ", ".join([mark] * len(columns))
    into = _into(session, table, columns)
    statement = (
        f"INSERT INTO {into} VALUES ({marks}) "  # noqa: S608 -- our own names
        f"ON CONFLICT ({keys}) DO UPDATE SET {changed}"
    )
    session.connection().exec_driver_sql(statement, list(rows))


def _into(session: Session, table: type[Table], columns: Sequence[str]) -> str:
    quote = session.connection().dialect.identifier_preparer.quote
    return f"{quote(table.__tablename__)} ({', '.join(map(quote, columns))})"


def _copy(session: Session, statement: str, rows: Sequence[Values]) -> None:
    import psycopg

    driver: Any = session.connection().connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        # As SQLAlchemy raises what its own statements meet.
        raise DBAPIError.instance(statement, None, error, psycopg.Error) from error
