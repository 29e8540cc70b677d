"""Rows that were written at every earlier revision, in all of its tables, are there today.

No release of edgeml came without all of its migrations, so every version that was ever released
is one of these revisions.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Engine, LargeBinary, MetaData, Numeric, Table, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import Float

from fleet.db import Database, migrate, tables
from fleet.db import upgrade as upgrade_database

_SCRIPTS = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
HEAD = _SCRIPTS.get_current_head()
REVISIONS = [script.revision for script in reversed(list(_SCRIPTS.walk_revisions()))]
CONFIGURATION = {
    "config_version": 7,
    "sources": [{"name": "belt", "uri": "file:///b", "model": "digits", "fps": 2.0, "loop": True}],
    "telemetry_every_s": 2.0,
    "site": {"digits": {"threshold": 0.5}},
    "data_budget": {"month_bytes": 9, "month_begins": 1},
}
# What is no matter of types: columns that exclude each other, and JSON that migrations read.
SPECIAL: dict[tuple[str, str], Any] = {
    ("devices", "configuration"): json.dumps(CONFIGURATION),
    ("rollouts", "revision"): None,
    ("configuration_layers", "kind"): "label",
    ("configuration_layers", "number"): 1,
}
# What a migration took away on purpose, as (table, column).
GONE: set[tuple[str, str]] = set()


@pytest.fixture
def database(new_database: Callable[[Path], str], tmp_path: Path) -> Any:
    made = Database(new_database(tmp_path))
    if not made.is_sqlite:  # it comes with today's tables
        with made.write() as session:
            session.execute(text("DROP SCHEMA public CASCADE"))
            session.execute(text("CREATE SCHEMA public"))
    yield made
    made.close()


def value(table: Table, column: Any, number: int) -> Any:
    if (table.name, column.name) in SPECIAL:
        return SPECIAL[table.name, column.name]
    if isinstance(column.type, Boolean):
        return False
    if isinstance(column.type, Float | Numeric):
        return number + 0.5
    if isinstance(column.type, LargeBinary):
        return bytes([number])
    try:
        is_text = column.type.python_type is str
    except NotImplementedError:
        is_text = True
    if not is_text:
        return number
    return f"{column.name}-{number}"[-(getattr(column.type, "length", None) or 1000) :]


def fill(engine: Engine, number: int = 1) -> dict[str, dict[str, Any]]:
    """A row in every table, its references right; returns the rows."""
    metadata = MetaData()
    metadata.reflect(engine)
    rows: dict[str, dict[str, Any]] = {}
    with engine.connect() as connection:
        connection.execution_options(writes=True)
        with connection.begin():
            for table in metadata.sorted_tables:
                if table.name == "alembic_version":
                    continue
                row = {column.name: value(table, column, number) for column in table.columns}
                for key in table.foreign_keys:
                    if row[key.parent.name] is not None:
                        row[key.parent.name] = rows[key.column.table.name][key.column.name]
                connection.execute(table.insert(), row)
                rows[table.name] = row
    return rows


def test_every_row_that_any_earlier_revision_had_is_kept(database: Database) -> None:
    before: list[tuple[str, dict[str, Any]]] = []
    for number, revision in enumerate(REVISIONS, start=1):
        command.upgrade(migrate.config(database), revision)
        before += fill(database.engine, number).items()
    upgrade_database(database)
    command.check(migrate.config(database))
    metadata = MetaData()
    metadata.reflect(database.engine)
    with database.engine.connect() as connection:
        for name, row in before:
            kept = {column: said for column, said in row.items() if (name, column) not in GONE}
            table = metadata.tables[name]
            columns = [table.c[column] for column in kept]
            found = [dict(r._mapping) for r in connection.execute(select(*columns))]
            assert kept in found, name


def test_what_a_device_was_configured_with_is_its_own_layer(database: Database) -> None:
    command.upgrade(migrate.config(database), "0009")
    fill(database.engine)
    upgrade_database(database)
    with database.read() as session:
        [layer] = session.query(tables.ConfigurationLayer)
        [revision] = session.query(tables.ConfigurationRevision)
    assert (layer.device, layer.number, revision.layer) == ("id-1", 1, "device:id-1")
    assert json.loads(revision.settings) == {
        "sources": CONFIGURATION["sources"],
        "telemetry_every_s": 2.0,
        "site": {"digits": {"threshold": 0.5}},
        "data_budget": {"month_bytes": 9},
    }


def test_the_migrations_are_one_chain() -> None:
    assert _SCRIPTS.get_heads() == [HEAD]


def test_what_history_refers_to_can_be_neither_deleted_nor_renamed(database: Database) -> None:
    """The database itself keeps whatever another table refers to."""
    upgrade_database(database)
    rows = fill(database.engine)
    metadata = MetaData()
    metadata.reflect(database.engine)
    # What goes with its owner on purpose, such as a user's tokens, is no history.
    keys = [key for table in metadata.tables.values() for key in table.foreign_keys]
    referred = {key.column.table.name for key in keys if key.ondelete != "CASCADE"}
    assert {"devices", "releases", "rollouts", "configuration_revisions"} <= referred
    for name in sorted(referred):
        table = metadata.tables[name]
        key = {column.name: rows[name][column.name] for column in table.primary_key}
        where = [table.c[column] == said for column, said in key.items()]
        renamed = {c: said + (1 if isinstance(said, int) else "x") for c, said in key.items()}
        for change in (table.delete(), table.update().values(renamed)):
            with pytest.raises(IntegrityError), database.write() as session:
                session.execute(change.where(*where))
        with database.read() as session:
            assert session.execute(select(table).where(*where)).one()
