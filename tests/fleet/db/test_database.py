import os
import threading
from pathlib import Path

import pytest
from sqlalchemy import func, select

from edgeml.errors import UserError
from fleet.db import Database, upgrade
from fleet.db.database import sqlite_url
from fleet.db.tables import Fact


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(sqlite_url(tmp_path / "fleet.db"))
    upgrade(made)
    return made


def test_nobody_else_reads_the_file(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        database = Database(sqlite_url(tmp_path / "fleet.db"))
        upgrade(database)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    database.close()
    assert modes["fleet.db"] == 0o600
    assert set(modes.values()) == {0o600}


def test_many_threads_write_and_none_fails(database: Database) -> None:
    faults: list[Exception] = []

    def write(number: int) -> None:
        try:
            for turn in range(20):
                with database.write() as session:
                    known = session.scalar(select(func.count()).select_from(Fact))
                    session.add(Fact(name=f"{number}.{turn}", value=str(known)))
        except Exception as error:  # noqa: BLE001 -- any fault is the failure
            faults.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with database.read() as session:
        # Each saw all that were committed before it: none began on an old view.
        assert sorted(int(f.value) for f in session.scalars(select(Fact))) == list(range(120))
    database.close()


def test_an_error_rolls_everything_back(database: Database) -> None:
    def write() -> None:
        with database.write() as session:
            session.add(Fact(name="a", value="b"))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    with database.read() as session:
        assert session.get(Fact, "a") is None
    database.close()


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.write() as writing:
        writing.add(Fact(name="a", value="b"))
        writing.flush()
        with database.read() as reading:
            assert reading.get(Fact, "a") is None
    database.close()


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        Database("no database at all")
