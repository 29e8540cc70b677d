"""The commands that this device was given: each is kept before it is acknowledged, and done once.

    journalled -> started -> answered -> told

`started` is on the disk before anything is done, so that what ended the agent is never done
again; the answer is, before it goes into the outbox, so that it is never lost. A command stays
until it has expired by the time that the fleet has proven: until then it may come again.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import msgspec

from cloud_sync.commands import Command, CommandResult
from edgeml.errors import DeviceError

log = logging.getLogger(__name__)

MAX_COMMANDS = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS commands (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, expires REAL NOT NULL,
    stage TEXT NOT NULL, command BLOB NOT NULL, result BLOB
)
"""


class Stage(StrEnum):
    """How far a command is."""

    JOURNALLED = "journalled"
    STARTED = "started"
    ANSWERED = "answered"
    TOLD = "told"


class CommandJournal:
    """See the module. Safe to use from several threads.

    Raises:
        DeviceError: the file cannot be used; every method may raise it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._db = _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise _unusable(path, error) from error
            log.error("the commands in %s are damaged (%s) and forgotten", path, error)  # noqa: TRY400
            path.replace(path.with_name(path.name + ".damaged"))
            self._db = _open(path)
        self._path = path

    def take(self, command: Command, proven: float) -> bool:
        """Keep a command; returns whether it is a new one.

        Args:
            command: what the fleet has signed.
            proven: the latest time that the fleet has proven; what expired before is forgotten.
        """
        row = [command.id, command.expires_at, str(Stage.JOURNALLED), msgspec.json.encode(command)]
        with self._used() as db:
            db.execute(
                "DELETE FROM commands WHERE stage = ? AND expires < ?", [str(Stage.TOLD), proven]
            )
            (kept,) = db.execute("SELECT count(*) FROM commands").fetchone()
            if kept >= MAX_COMMANDS:
                raise DeviceError(
                    "A command was not taken.", why=f"{kept} are kept, that have not expired."
                )
            taken = db.execute(
                "INSERT OR IGNORE INTO commands (id, expires, stage, command) VALUES (?,?,?,?)", row
            )
            return taken.rowcount == 1

    def at(self, stage: Stage) -> list[Command]:
        """The commands that are at a stage, in the order in which they came."""
        with self._used() as db:
            rows = db.execute(
                "SELECT command FROM commands WHERE stage = ? ORDER BY number", [str(stage)]
            ).fetchall()
        return [msgspec.json.decode(row[0], type=Command) for row in rows]

    def start(self, command: Command) -> None:
        """Note that a command is begun."""
        self._move(command.id, Stage.STARTED)

    def answer(self, result: CommandResult) -> None:
        """Keep a command's answer."""
        with self._used() as db:
            db.execute(
                "UPDATE commands SET stage = ?, result = ? WHERE id = ?",
                [str(Stage.ANSWERED), msgspec.json.encode(result), result.command],
            )

    def answers(self) -> list[CommandResult]:
        """The answers that are not in the outbox yet."""
        with self._used() as db:
            rows = db.execute(
                "SELECT result FROM commands WHERE stage = ? ORDER BY number",
                [str(Stage.ANSWERED)],
            ).fetchall()
        return [msgspec.json.decode(row[0], type=CommandResult) for row in rows]

    def told(self, result: CommandResult) -> None:
        """Note that an answer is in the outbox; its content is there now."""
        with self._used() as db:
            db.execute(
                "UPDATE commands SET stage = ?, result = NULL WHERE id = ?",
                [str(Stage.TOLD), result.command],
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _move(self, name: str, stage: Stage) -> None:
        with self._used() as db:
            db.execute("UPDATE commands SET stage = ? WHERE id = ?", [str(stage), name])

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        """The file, within one transaction that is on the disk afterwards."""
        with self._lock:
            try:
                with self._db:
                    yield self._db
            except sqlite3.Error as error:
                raise _unusable(self._path, error) from error


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.execute("PRAGMA synchronous=FULL")
        database.execute(_SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _unusable(path: Path, error: sqlite3.Error) -> DeviceError:
    return DeviceError(
        f"The journal of commands {path} cannot be used.", why=f"{error}.", fix="Check the disk."
    )
