"""The byte ledger: what this device cost on the network, by month, rollout and cause.

What is going to be spent is written down before it is (a lease, durable), and settled with what
it was afterwards: after `kill -9` or a power loss the ledger may say up to one lease too much,
never too little. Leases are small where the network is slow, so that little is written and
little is lost. A damaged file is moved aside: as much of the month's budget as of the month then
counts as spent, and the fleet is told. The newest months are kept.
"""

import contextlib
import logging
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cloud_sync.data_budget import bounds, cost, month_of
from cloud_sync.messages import Cause, DataBudget, LedgerEntry, LedgerRecord
from cloud_sync.metering import Traffic, is_counted
from edge_agent.account import Account, Metered
from edge_agent.budget import refusal, share_of_month, uncounted
from edge_agent.shortage import Shortage

if TYPE_CHECKING:
    import sqlite3

log = logging.getLogger(__name__)

REPORT_S = 600.0
MAX_REPORTED = 200
KEPT_MONTHS = 24
_ANEW = "the ledger's file was damaged and is begun anew; what it had told stands at the fleet"
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    month TEXT, rollout TEXT, cause TEXT,
    sent INTEGER DEFAULT 0, received INTEGER DEFAULT 0,
    failures INTEGER DEFAULT 0, note TEXT DEFAULT '', reported INTEGER DEFAULT 0,
    PRIMARY KEY (month, rollout, cause)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    id INTEGER PRIMARY KEY, month TEXT, rollout TEXT, cause TEXT, bytes INTEGER
);
"""


class Ledger:
    """See the module; safe to use from several threads.

    Args:
        path: the SQLite file.
        budget: the device's budget of this moment.
        now: Unix seconds, not before the latest time that was proven.

    The file is opened when it is first used; what uses it raises `Shortage` where it cannot be.
    """

    def __init__(
        self,
        path: Path,
        budget: Callable[[], DataBudget] = DataBudget,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.budget = budget
        self._now = now
        self._path = path
        self._lock = threading.RLock()
        self._report_at = time.monotonic()
        self._opened: sqlite3.Connection | None = None

    @property
    def id(self) -> str:
        """The ledger's random id; a wiped disk begins another."""
        with self._lock, self._failing():
            row = self._database.execute("SELECT value FROM facts WHERE name = 'id'").fetchone()
        return str(row[0])

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._failing():
            if self._opened is not None:
                opened, self._opened = self._opened, None
                opened.close()

    def account(
        self, meter: Metered, cause: Cause, rollout: str = "", rollout_bytes: int = 0
    ) -> "Account":
        """An account to which what a meter counts from now on is charged."""
        return Account(self, meter, cause, rollout, rollout_bytes)

    def month(self) -> str:
        """The month of now."""
        return month_of(self._now(), self.budget().month_begins)

    def spent(self, *, month: str = "", rollout: str = "", cause: Cause | None = None) -> int:
        """What was spent, and may have been by what goes on; of all where nothing is named."""
        wanted = {"month": month, "rollout": rollout, "cause": str(cause or "")}
        named = {name: value for name, value in wanted.items() if value}
        where = " AND ".join(f"{name} = ?" for name in named) or "1"
        values = tuple(named.values())
        with self._lock, self._failing():
            (entries,) = self._database.execute(
                f"SELECT TOTAL(sent + received) FROM entries WHERE {where}",  # noqa: S608
                values,
            ).fetchone()
            (leases,) = self._database.execute(
                f"SELECT TOTAL(bytes) FROM leases WHERE {where}",  # noqa: S608
                values,
            ).fetchone()
        return int(entries + leases)

    def require(self, payload: int, rollout: str, rollout_bytes: int, *, lease: int = 0) -> None:
        """Check that the budget has room for fetching so many bytes.

        Args:
            payload: the blobs' bytes.
            rollout: for which.
            rollout_bytes: what its policy allows, 0 for no bound.
            lease: what whoever asks has leased itself.

        Raises:
            BudgetSpent: it has not, and says what is needed and what is left; or there is a
                budget and this kernel counts nothing.
        """
        limits = bounds(self.budget(), rollout_bytes)
        month = self.month()
        checks = [("of this month", limits.month_bytes, month, "")]
        if rollout:
            checks.append((f"of the rollout {rollout}", limits.rollout_bytes, "", rollout))
        for whose, bound, of_month, of_rollout in checks:
            if bound is None:
                continue
            if not is_counted():
                raise uncounted(waits=limits.waits)
            left = bound - self.spent(month=of_month, rollout=of_rollout) + lease
            left -= int(bound * self._assumed(of_month))
            if cost(payload) > left or left <= 0:
                raise refusal(cost(payload), left, bound, whose, waits=limits.waits)

    def failed_delta(self, rollout: str, cause: str) -> None:
        """Count a delta that did not work out."""
        with self._writing() as database:
            database.execute(
                "INSERT INTO entries (month, rollout, cause, failures, note) VALUES (?, ?, ?, 1, ?)"
                " ON CONFLICT DO UPDATE SET failures = failures + 1, note = excluded.note,"
                " reported = 0",
                (self.month(), rollout, str(Cause.DELTA), cause[:500]),
            )

    def entries(self) -> tuple[LedgerEntry, ...]:
        """All totals, settled."""
        return self._entries("1")

    def report(self, *, soon: bool = False) -> LedgerRecord | None:
        """The totals that the fleet was not told, from time to time; None where it is not time."""
        if not soon and time.monotonic() < self._report_at:
            return None
        self._report_at = time.monotonic() + REPORT_S
        with self._writing() as database:
            database.execute(
                "DELETE FROM entries WHERE month NOT IN"
                " (SELECT DISTINCT month FROM entries ORDER BY month DESC LIMIT ?)",
                (KEPT_MONTHS,),
            )
        found = self._entries(f"reported = 0 LIMIT {MAX_REPORTED}")
        return LedgerRecord(ledger=self.id, entries=found) if found else None

    def reported(self, record: LedgerRecord) -> None:
        """Note that the fleet will be told; what has changed since is told the next time."""
        with self._writing() as database:
            database.executemany(
                "UPDATE entries SET reported = 1 WHERE month = ? AND rollout = ? AND cause = ?"
                " AND sent = ? AND received = ? AND failures = ?",
                [
                    (e.month, e.rollout, str(e.cause), e.sent, e.received, e.failures)
                    for e in record.entries
                ],
            )

    def settle(
        self, lease: int, rollout: str, charges: dict[Cause, Traffic], again: tuple[Cause, int]
    ) -> int:
        """Charge what was spent, end a lease (0: none) and take another (of 0 bytes: none)."""
        month, (cause, amount) = self.month(), again
        with self._writing() as database:
            for charged, traffic in charges.items():
                database.execute(
                    "INSERT INTO entries (month, rollout, cause, sent, received)"
                    " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                    " sent = sent + excluded.sent, received = received + excluded.received,"
                    " reported = 0",
                    (month, rollout, str(charged), traffic.sent, traffic.received),
                )
            if lease:
                database.execute("DELETE FROM leases WHERE id = ?", (lease,))
            if not amount:
                return 0
            # By chance, so that the number of a file that was moved aside is no other lease's.
            number = secrets.randbits(62) + 1
            row = (number, month, rollout, str(cause), amount)
            database.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?)", row)
            return number

    def _entries(self, where: str) -> tuple[LedgerEntry, ...]:
        with self._lock, self._failing():
            fields = LedgerEntry.__struct_fields__
            rows = self._database.execute(
                f"SELECT {', '.join(fields)} FROM entries WHERE {where}"  # noqa: S608
            ).fetchall()
        return tuple(msgspec.convert(dict(zip(fields, r, strict=True)), LedgerEntry) for r in rows)

    @property
    def _database(self) -> "sqlite3.Connection":
        import sqlite3

        if self._opened is None:
            try:
                self._opened = self._begin()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._set_aside(error)
                self._opened = self._begin()
        return self._opened

    def _begin(self) -> "sqlite3.Connection":
        database = _open(self._path)
        try:
            _fold(database)
            self._name(database)
        except BaseException:
            database.close()
            raise
        return database

    def _name(self, database: "sqlite3.Connection") -> None:
        """Give a new file its id; one that replaces a damaged one has this month assumed."""
        named = "INSERT OR IGNORE INTO facts VALUES ('id', ?)"
        with database:
            database.execute("BEGIN IMMEDIATE")
            is_new = database.execute(named, (uuid.uuid4().hex,)).rowcount > 0
            if is_new and _damaged(self._path).exists():
                share = share_of_month(self._now(), self.budget().month_begins)
                assumed = f"{self.month()} {share:.3f}"
                database.execute("INSERT INTO facts VALUES ('assumed', ?)", (assumed,))
                database.execute(
                    "INSERT INTO entries (month, rollout, cause, failures, note)"
                    " VALUES (?, '', ?, 1, ?)",
                    (self.month(), str(Cause.METADATA), _ANEW),
                )

    def _assumed(self, month: str) -> float:
        """The share of a month's budget that may have been spent before the file was damaged."""
        with self._lock, self._failing():
            row = self._database.execute(
                "SELECT value FROM facts WHERE name = 'assumed'"
            ).fetchone()
        of_month, _, share = row[0].partition(" ") if row else ("", "", "")
        return float(share) if of_month and of_month == month else 0.0

    def _set_aside(self, error: "sqlite3.Error") -> None:
        """Move the damaged file out of the way, over one that was moved before."""
        log.error("the byte ledger %s is damaged (%s); a new one begins", self._path, error)
        if self._opened is not None:
            opened, self._opened = self._opened, None
            opened.close()
        self._path.replace(_damaged(self._path))
        for beside in ("-wal", "-shm"):
            self._path.with_name(self._path.name + beside).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> "Iterator[sqlite3.Connection]":
        with self._lock, self._failing(), self._database as database:
            database.execute("BEGIN IMMEDIATE")
            yield database

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        import sqlite3

        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.Error) and _is_damage(error):
                with contextlib.suppress(OSError, sqlite3.Error):
                    self._set_aside(error)
            raise Shortage(
                f"The byte ledger {self._path} cannot be written.",
                why=f"{error}.",
                fix="Check the disk; nothing is fetched that cannot be counted.",
            ) from error


def _open(path: Path) -> "sqlite3.Connection":
    import sqlite3

    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        with closing(database.cursor()) as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")
            # What was leased is on the disk before a byte of it is asked for.
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.executescript(_TABLES)
    except BaseException:
        database.close()
        raise
    return database


def _is_damage(error: "sqlite3.Error") -> bool:
    import sqlite3

    found = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return found in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _damaged(path: Path) -> Path:
    return path.with_name(path.name + ".damaged")


def _fold(database: "sqlite3.Connection") -> None:
    """What was going on when the process before ended counts as spent."""
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.execute(
            "INSERT INTO entries (month, rollout, cause, received)"
            " SELECT month, rollout, cause, SUM(bytes) FROM leases WHERE 1"
            " GROUP BY month, rollout, cause"
            " ON CONFLICT DO UPDATE SET received = received + excluded.received, reported = 0"
        )
        database.execute("DELETE FROM leases")
