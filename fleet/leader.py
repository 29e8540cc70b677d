"""Who leads: of the processes that may, one, found by an advisory lock of PostgreSQL.

The lock belongs to a connection of its own. The server lets go of it when the process is killed
(at once) and when nothing was heard from it for `SILENCE_S` (a process that hangs or is paused, a
network that is cut). An old leader may not know of that: so each lead has a *term*, a number that
only rises, and every transaction of a leader holds the term's row, shared, until its commit, and
ends with an error where the term is not its own any more. A new leader raises the term first,
which waits for what the one before has under way. So no two leaders ever write in turn.

On SQLite there is one process (`fleet.server` locks the folder), which leads.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from edgeml.errors import EdgemlError, RemoteError
from fleet.db import tables
from fleet.services.context import Services

if TYPE_CHECKING:
    from psycopg import Connection

LOCK = 0x6564_6765_6D6C  # "edgeml"
TERM = "leader.term"
NAME = "leader.name"
LOOK_EVERY_S = 1.0
BEAT_S = 3.0
SILENCE_S = 15
_MIDWAY_S = 30  # longer than a leader thinks between two statements of one transaction
_LOG = logging.getLogger(__name__)
_RAISE = """
INSERT INTO facts (name, value) VALUES (%s, '1')
ON CONFLICT (name) DO UPDATE SET value = (facts.value::bigint + 1)::text RETURNING value
"""
_KEEP = """
INSERT INTO facts (name, value) VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""


class Duty(Protocol):
    """What one process of a fleet does alone."""

    def start(self) -> None:
        """Begin, in the background."""
        ...

    def stop(self) -> None:
        """End, soon."""
        ...


class Leader:
    """Stands for the lead, and does the duties while it has it.

    Args:
        services: the fleet.
        duties: made anew for each term, from services whose writes are refused after it.
        name: this process, for people.
    """

    def __init__(
        self, services: Services, duties: Callable[[Services], Sequence[Duty]], name: str
    ) -> None:
        self._services = services
        self._duties = duties
        self._name = name
        self._stop = threading.Event()
        self._alone = ExitStack()
        self._thread = threading.Thread(target=self._run, name="leader", daemon=True)

    def start(self) -> None:
        """Begin to stand."""
        if self._services.database.is_sqlite:
            _start(self._alone, self._duties(self._services))
        else:
            self._thread.start()

    def stop(self) -> None:
        """End the duties, and let another lead."""
        self._stop.set()
        self._alone.close()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._services.database.direct("edgeml leader") as connection:
                    self._stand(connection)
            except EdgemlError as error:
                _LOG.warning("cannot lead: %s", error)
                self._stop.wait(LOOK_EVERY_S)

    def _stand(self, connection: "Connection") -> None:
        connection.execute(f"SET idle_session_timeout = '{SILENCE_S}s'".encode())
        while not _one(connection, "SELECT pg_try_advisory_lock(%s)", LOCK):
            if self._stop.wait(LOOK_EVERY_S):
                return
        # By the connection that holds the lock: whoever raises the term leads at that moment.
        term = str(_one(connection, _RAISE, TERM))
        connection.execute(_KEEP.encode(), (NAME, self._name))
        _LOG.info("%s leads, term %s", self._name, term)
        guarded = self._services.database.guarded(lambda session: check(session, term))
        try:
            with ExitStack() as stack:
                _start(stack, self._duties(replace(self._services, database=guarded)))
                while not self._stop.wait(BEAT_S):
                    connection.execute(b"SELECT 1")
        finally:
            _LOG.info("%s leads no more", self._name)


def check(session: Session, term: str) -> None:
    """Hold a term until the session's commit.

    Raises:
        RemoteError: another process leads.
    """
    session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{_MIDWAY_S}s'"))
    fact = tables.Fact
    held = select(fact.value).where(fact.name == TERM).with_for_update(read=True)
    now = session.scalar(held)
    if now != term:
        raise RemoteError(
            "Another process leads the fleet.",
            why=f"This one led in term {term}, it is term {now}.",
            fix="Nothing is to be done: the other one goes on with it.",
        )


def _start(stack: ExitStack, duties: Sequence[Duty]) -> None:
    for duty in duties:
        duty.start()
        stack.callback(duty.stop)


def _one(connection: "Connection", query: str, *values: object) -> object:
    row = connection.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]
