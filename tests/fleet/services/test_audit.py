from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from edgeml.errors import TrustError
from fleet.db import tables
from fleet.services import Services, audit


def note(services: Services, caller: Any, number: int) -> None:
    for subject in range(number):
        with audit.audited(services, caller, "test.note", str(subject)):
            pass


@contextmanager
def unlocked(services: Services) -> Iterator[Session]:
    """A session without what keeps the log as it is, as one with the database's own rights has."""
    off = ["SET LOCAL session_replication_role = replica"]
    if services.database.is_sqlite:
        off = [f"DROP TRIGGER audit_no_{verb}" for verb in ("update", "delete")]
    with services.database.write() as session:
        for statement in off:
            session.execute(text(statement))
        yield session


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"])
def test_the_database_itself_refuses_to_change_the_log(
    services: Services, operator: Any, statement: str
) -> None:
    note(services, operator, 2)
    with pytest.raises(DBAPIError, match="append-only"), services.database.write() as session:
        session.execute(text(statement))
    assert audit.verify(services) == 2


def test_the_chain_holds_and_is_counted(services: Services, operator: Any) -> None:
    note(services, operator, 5)
    assert audit.verify(services) == 5


@pytest.mark.parametrize("field", ["actor", "reason", "detail", "at", "hash"])
def test_a_changed_entry_is_noticed(services: Services, operator: Any, field: str) -> None:
    note(services, operator, 3)
    with unlocked(services) as session:
        entry = session.get_one(tables.AuditEntry, 2)
        setattr(entry, field, 1.0 if field == "at" else "changed")
    with pytest.raises(TrustError, match="at entry 2"):
        audit.verify(services)


def test_a_removed_entry_is_noticed(services: Services, operator: Any) -> None:
    note(services, operator, 3)
    with unlocked(services) as session:
        session.delete(session.get_one(tables.AuditEntry, 2))
    with pytest.raises(TrustError, match="at entry 2"):
        audit.verify(services)


def test_an_action_that_fails_leaves_no_entry(services: Services, operator: Any) -> None:
    with (
        pytest.raises(RuntimeError),
        audit.audited(services, operator, "test.note", "x"),
    ):
        raise RuntimeError
    assert audit.verify(services) == 0


def test_pages_follow_one_another(services: Services, operator: Any) -> None:
    note(services, operator, 5)
    page = audit.entries(services, limit=3)
    assert [entry["seq"] for entry in page["items"]] == [5, 4, 3]
    rest = audit.entries(services, limit=3, after=int(page["next"] or 0))
    assert ([entry["seq"] for entry in rest["items"]], rest["next"]) == ([2, 1], None)
