"""Many rows at once: neither the object mapper nor the compiler looks at each of them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from fleet.db.tables import Table


def insert_rows(session: Session, table: type[Table], rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows of the same columns, as the driver takes them; no defaults are filled in."""
    connection = session.connection()
    quote = connection.dialect.identifier_preparer.quote
    mark = ":{}" if connection.dialect.name == "sqlite" else "%({})s"
    names = list(rows[0])
    columns = ", ".join(quote(name) for name in names)
    values = ", ".join(mark.format(name) for name in names)
    into = quote(table.__tablename__)
    statement = f"INSERT INTO {into} ({columns}) VALUES ({values})"  # noqa: S608 -- our own names
    connection.exec_driver_sql(statement, list(rows))
