from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import inspect, text

from edgeml.errors import UserError
from fleet.db import Database, migrate, upgrade
from fleet.db.database import sqlite_url
from fleet.db.tables import Table


def test_an_empty_database_gets_every_table(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "fleet.db"))
    upgrade(database)
    found = set(inspect(database.engine).get_table_names())
    assert found == {*Table.metadata.tables, "alembic_version"}
    database.close()


def test_the_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "fleet.db"))
    upgrade(database)
    command.check(migrate.config(database))
    database.close()


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "fleet.db"))
    upgrade(database)
    upgrade(database)
    database.close()


def test_the_first_migration_can_be_undone(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "fleet.db"))
    upgrade(database)
    command.downgrade(migrate.config(database), "base")
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}
    database.close()


def test_a_database_of_a_newer_edgeml_is_refused(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "fleet.db"))
    upgrade(database)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match="cannot be brought up to date"):
        upgrade(database)
    database.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_bytes(b"not a database, not at all" * 100)
    database = Database(sqlite_url(tmp_path / "fleet.db"))
    with pytest.raises(UserError, match="cannot be used"):
        upgrade(database)
    database.close()


def test_the_tables_use_nothing_that_postgresql_lacks() -> None:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    for table in Table.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))


def test_a_migration_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "fleet.db"))
    with database.write() as session:
        # The last table that the migration makes is in its way.
        session.execute(text("CREATE TABLE signed_batches (x INTEGER)"))
    with pytest.raises(UserError):
        upgrade(database)
    assert set(inspect(database.engine).get_table_names()) == {"signed_batches"}
    database.close()
