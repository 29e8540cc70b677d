"""Who leads: one at a time, and nobody writes after the lead was lost."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import RemoteError
from fleet.db import tables
from fleet.duties import Repeated
from fleet.leader import NAME, TERM, Leader
from fleet.notices import _CHANNEL, Notices
from fleet.services import Services, facts
from tests.e2e.loop import until


class Counting:
    """A duty that writes its leader's name again and again, and says when it could not."""

    def __init__(self, services: Services, name: str) -> None:
        self.services = services
        self._name = name
        self.refused = threading.Event()
        self._repeated = Repeated(name, 0.02, self.write)

    def start(self) -> None:
        self._repeated.start()

    def stop(self) -> None:
        self._repeated.stop()

    def write(self) -> None:
        try:
            with self.services.database.write() as session:
                facts.put(session, "written-by", self._name)
        except RemoteError:
            self.refused.set()
            raise


@pytest.fixture
def two(tmp_path: Path, make: Callable[..., Services]) -> Iterator[tuple[Services, Services]]:
    """Two processes' services on one database and one folder."""
    made = (make(tmp_path / "fleet"), make(tmp_path / "fleet"))
    yield made
    for services in made:
        services.database.close()


def fact(services: Services, name: str) -> str:
    with services.database.read() as session:
        return facts.get(session, name)


def standing(services: Services, name: str) -> tuple[Leader, list[Counting]]:
    """Something that stands for the lead, and its duties, of each term."""
    made: list[Counting] = []

    def duties(guarded: Services) -> list[Counting]:
        made.append(Counting(guarded, name))
        return made[-1:]

    return Leader(services, duties, name), made


postgresql_only = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


def test_alone_on_sqlite_it_leads_at_once(tmp_path: Path, make: Callable[..., Services]) -> None:
    services = make(tmp_path / "fleet")
    leader, duties = standing(services, "one")
    leader.start()
    assert len(duties) == 1
    until("it to write", lambda: fact(services, "written-by") == "one")
    leader.stop()
    services.database.close()


@postgresql_only
def test_one_leads_and_another_takes_over_when_it_ends(two: tuple[Services, Services]) -> None:
    (one, first), (other, second) = standing(two[0], "one"), standing(two[1], "other")
    one.start()
    until("the first to lead", lambda: fact(two[1], NAME) == "one")
    other.start()
    until("the first to write", lambda: fact(two[1], "written-by") == "one")
    assert second == []
    term = int(fact(two[1], TERM))
    one.stop()
    until("the other to lead", lambda: fact(two[0], NAME) == "other")
    until("the other to write", lambda: fact(two[0], "written-by") == "other")
    assert int(fact(two[0], TERM)) == term + 1
    assert not first[0].refused.is_set()
    other.stop()


@postgresql_only
def test_a_leader_that_lost_its_lock_without_knowing_writes_nothing_more(
    two: tuple[Services, Services], postgresql: Any
) -> None:
    (one, first), (other, second) = standing(two[0], "one"), standing(two[1], "other")
    one.start()
    until("the first to write", lambda: fact(two[1], "written-by") == "one")
    other.start()
    # What the server does when it has heard nothing for a while; the first is not told.
    postgresql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks "
        "JOIN pg_database ON pg_database.oid = pg_locks.database "
        "WHERE locktype = 'advisory' AND granted AND datname = "
        f"'{two[0].database.url.rpartition('/')[2]}'"
    )
    until("the other to lead", lambda: second)
    assert first[0].refused.wait(30)  # its thread goes on until the next beat, and is refused
    until("the other to write", lambda: fact(two[0], "written-by") == "other")
    with pytest.raises(RemoteError, match="Another process leads"):
        first[0].write()
    assert fact(two[0], "written-by") == "other"
    other.stop()
    one.stop()


@postgresql_only
def test_who_takes_over_waits_for_what_the_one_before_has_under_way(
    two: tuple[Services, Services],
) -> None:
    one, first = standing(two[0], "one")
    one.start()
    until("the first to write", lambda: fact(two[1], "written-by") == "one")
    raised = threading.Event()

    def take_over() -> None:
        with two[1].database.write() as session:
            row = session.get_one(tables.Fact, TERM, with_for_update=True)
            row.value = str(int(row.value) + 1)
        raised.set()

    with first[0].services.database.write() as session:
        thread = threading.Thread(target=take_over)
        thread.start()
        until("it to wait", lambda: _waiting(two[1]))
        assert not raised.is_set()
        facts.put(session, "under-way", "done")
    thread.join(30)
    assert raised.is_set()
    assert fact(two[1], "under-way") == "done"
    with pytest.raises(RemoteError, match="Another process leads"):
        first[0].write()
    one.stop()


def _waiting(services: Services) -> int:
    from sqlalchemy import text

    with services.database.read() as session:
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return int(session.execute(text(query)).scalar_one())


@postgresql_only
def test_processes_hear_of_each_others_changes_and_not_of_their_own(
    two: tuple[Services, Services],
) -> None:
    notices = [Notices(services) for services in two]
    heard: list[list[str]] = [[], []]
    for services, into in zip(two, heard, strict=True):
        services.replaced.tell(into.append)
    for one in notices:
        one.start()
    until("them to listen", lambda: all(s.changes.count for s in two))  # each looks once first
    before = two[1].changes.count
    two[0].changes.announce()
    until("the other to hear", lambda: two[1].changes.count > before)
    two[0].replaced("cam-1")
    until("the other to hear of it", lambda: heard[1] == ["cam-1"])
    two[1].replaced("cam-2")
    until("the first to hear of it", lambda: "cam-2" in heard[0])
    assert heard == [["cam-1", "cam-2"], ["cam-1", "cam-2"]]
    for one in notices:
        one.stop()


@postgresql_only
@pytest.mark.parametrize("said", ["", "no JSON", '{"by": 1}', "[]"])
def test_a_notice_of_somebody_else_deafens_nobody(
    two: tuple[Services, Services], said: str
) -> None:
    notices = [Notices(services) for services in two]
    for one in notices:
        one.start()
    until("them to listen", lambda: all(s.changes.count for s in two))
    with two[0].database.direct("a guest") as guest:
        guest.execute(b"SELECT pg_notify(%s, %s)", (_CHANNEL, said))
    before = two[1].changes.count
    two[0].changes.announce()
    until("the other to hear", lambda: two[1].changes.count > before)
    for one in notices:
        one.stop()


@postgresql_only
def test_a_key_that_one_process_rotates_signs_in_the_other_too(
    two: tuple[Services, Services],
) -> None:
    one, other = two[0].keys, two[1].keys
    notices = [Notices(services) for services in two]
    for each in notices:
        each.start()
    until("them to listen", lambda: all(s.changes.count for s in two))
    one.directors.announce()
    one.directors.promote()
    two[0].changes.announce()
    until("the other to know", lambda: other.director_id == one.director_id)
    assert other.director_pem == one.director_pem
    for each in notices:
        each.stop()
