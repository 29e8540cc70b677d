"""SQLite or PostgreSQL: which database the fleets of a test are on, and copies of it.

Tests of what speaks to the database run on both; `EDGEML_TEST_DATABASES=sqlite` leaves the other
out.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleet.db import Database, upgrade
from fleet.db.database import sqlite_url
from fleet.services import Services
from tests.needs import module

if TYPE_CHECKING:
    from tests.sim.postgresql import PostgreSQL


def database_url(data: Path) -> str:
    """SQLite in the folder; where the test runs on PostgreSQL, a database of its own there."""
    if not _POSTGRESQL:
        return sqlite_url(data / "fleet.db")
    server, made = _POSTGRESQL[-1]
    if data not in made:
        made[data] = server.create()
    return made[data]


def begin(database: Database) -> None:
    """Give an empty SQLite database this version's tables: quicker than its migrations."""
    if database.is_sqlite:
        path = Path(str(database.engine.url.database))
        if not path.stat().st_size:
            path.write_bytes(_migrated())


@cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.db"
        database = Database(sqlite_url(path))
        upgrade(database)
        database.close()
        return path.read_bytes()


# The server on which the test under way runs, and the database of each folder.
_POSTGRESQL: "list[tuple[PostgreSQL, dict[Path, str]]]" = []
# Where tests run on both databases: what they ask for decides on `database_kind`.
_ON_BOTH = ("alerts", "db", "ingest", "services", "webhooks", "test_controller.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of what speaks to the database on SQLite and on PostgreSQL."""
    given = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "database_kind" not in metafunc.fixturenames or "database_kind" in given:
        return
    here = Path(__file__).parent
    inside = metafunc.definition.path.is_relative_to(here)
    place = metafunc.definition.path.relative_to(here).parts[0] if inside else ""
    if place in _ON_BOTH and metafunc.definition.get_closest_marker("sqlite") is None:
        wanted = os.environ.get("EDGEML_TEST_DATABASES", "sqlite,postgresql").split(",")
        metafunc.parametrize("database_kind", wanted, indirect=True)


@pytest.fixture(scope="session")
def postgresql() -> "Iterator[PostgreSQL]":
    """A PostgreSQL of this worker's own."""
    module("psycopg")
    from tests.sim.postgresql import PostgreSQL

    server = PostgreSQL()
    yield server
    server.stop()


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """The database on which the fleets of a test are: `sqlite`, or `postgresql`."""
    kind = getattr(request, "param", "sqlite")
    if kind == "sqlite":
        yield kind
        return
    server = request.getfixturevalue("postgresql")
    made: dict[Path, str] = {}
    _POSTGRESQL.append((server, made))
    yield kind
    _POSTGRESQL.pop()
    for url in made.values():
        server.give_back(url)


@pytest.fixture
def new_database(database_kind: str) -> Callable[[Path], str]:
    """Makes the URL of an empty database that goes with a folder."""
    return database_url


class Backups:
    """Copies of a fleet's database, of either kind; the keys beside it stay as they are."""

    def __init__(self, make: Callable[..., Services], folder: Path) -> None:
        self._make = make
        self._folder = folder

    def take(self, services: Services) -> str:
        """A copy of this moment."""
        if not services.database.is_sqlite:
            services.database.close()  # it opens again by itself
            return _POSTGRESQL[-1][0].copy(services.database.url)
        copy = self._folder / f"{uuid.uuid4().hex}.db"
        with services.database.engine.connect() as connection:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("VACUUM INTO ?", (str(copy),))
        return str(copy)

    def restore(self, services: Services, copy: str) -> Services:
        """The fleet as it starts on a copy, with its present keys."""
        data = self._gone(services)
        if services.database.is_sqlite:
            shutil.copy(copy, data / "fleet.db")
        else:
            _POSTGRESQL[-1][0].restore(services.database.url, copy)
        return self._make(data, services.now)

    def lose(self, services: Services) -> Services:
        """The fleet as it starts on an empty database."""
        data = self._gone(services)
        if not services.database.is_sqlite:
            server, made = _POSTGRESQL[-1]
            server.drop(made.pop(data))
        return self._make(data, services.now)

    def restart(self, services: Services) -> Services:
        """The fleet as it starts again."""
        services.database.close()
        return self._make(services.keys.folder.parent, services.now)

    @staticmethod
    def _gone(services: Services) -> Path:
        data = services.keys.folder.parent
        services.database.close()
        for name in ("fleet.db", "fleet.db-wal", "fleet.db-shm"):
            (data / name).unlink(missing_ok=True)
        return data


@pytest.fixture
def backups(make: Callable[..., Services], tmp_path: Path) -> Backups:
    return Backups(make, tmp_path)
