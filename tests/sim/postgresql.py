"""Debian's PostgreSQL in a temporary folder, on a free port; `kill` is a power cut."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

import psycopg

from fleet.db import Database, upgrade
from tests.e2e.loop import _free_port, until
from tests.needs import program

_TEMPLATE = "edgeml_template"
# No test looks at what a power cut of the machine would leave.
_QUICK = (
    "-F",
    "-c",
    "full_page_writes=off",
    "-c",
    "synchronous_commit=off",
    "-c",
    "jit=off",
    "-N",
    "300",
)

_SCHEMA = """
SELECT table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema = 'public' ORDER BY 1, 2
"""
# Triggers and foreign keys do not look; what has no rows costs next to nothing.
_EMPTY = """
DO $$ DECLARE one record; BEGIN
  SET LOCAL session_replication_role = replica;
  FOR one IN SELECT tablename FROM pg_tables
      WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
    EXECUTE format('DELETE FROM %I', one.tablename);
  END LOOP;
  FOR one IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
    EXECUTE format('ALTER SEQUENCE %I RESTART', one.sequencename);
  END LOOP;
END $$
"""


class PostgreSQL:
    """A server of its own; whoever reaches the port may use it, as `fleet`."""

    def __init__(self) -> None:
        debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        self._programs = (
            debian[-1].parent if debian else Path(program("initdb", "postgresql")).parent
        )
        # It does not run as root; Debian's package brings a user for it.
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self.folder = Path(tempfile.mkdtemp(prefix="edgeml-postgresql-"))
        os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self.port = _free_port()
        self._spare: list[str] = []
        self._schema: list[tuple[Any, ...]] = []
        login = ("-U", "fleet", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C")
        subprocess.run(check=True, **self._command("initdb", "-D", self._data, *login))
        self.start()

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-k", "")
        self._process = subprocess.Popen(
            **self._command(
                "postgres", "-D", self._data, *where, *_QUICK, "-c", "max_connections=300"
            )
        )
        until("PostgreSQL", self._answers, 60)

    def url(self, database: str = "postgres") -> str:
        """A database's URL."""
        return f"postgresql+psycopg://fleet@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement of SQL; returns its rows."""
        url = self.url(database).replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create(self) -> str:
        """An empty database with this version's tables; returns its URL."""
        if self._spare:
            return self._spare.pop()
        if not self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{_TEMPLATE}'"):
            self.execute(f"CREATE DATABASE {_TEMPLATE}")
            template = Database(self.url(_TEMPLATE))
            upgrade(template)
            template.close()
            self._schema = self.execute(_SCHEMA, _TEMPLATE)
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY FILE_COPY")
        return self.url(name)

    def give_back(self, url: str) -> None:
        """Empty a database that `create` gave, for the next one that asks: quicker than a new one.

        One whose tables are others now is removed.
        """
        name = _name(url)
        if not self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            return
        self.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        if self.execute(_SCHEMA, name) == self._schema:
            self.execute(_EMPTY, name)
            self._spare.append(url)
        else:
            self.drop(url)

    def copy(self, url: str) -> str:
        """Another database with the same content; nobody may use the first meanwhile."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {_name(url)}")
        return self.url(name)

    def restore(self, url: str, copy: str) -> None:
        """Put a copy in a database's place."""
        self.drop(url)
        self.execute(f"ALTER DATABASE {_name(copy)} RENAME TO {_name(url)}")

    def drop(self, url: str) -> None:
        """Remove a database, whoever still uses it."""
        self.execute(f"DROP DATABASE IF EXISTS {_name(url)} WITH (FORCE)")

    def stop(self) -> None:
        """End it, and remove all that it held."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # its fast shutdown
            self._process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _command(self, name: str, *arguments: str) -> dict[str, Any]:
        root = os.geteuid() == 0
        as_user = {"user": self._user.pw_uid, "group": self._user.pw_gid} if root else {}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [str(self._programs / name), *arguments]
        return {"args": command, "cwd": self.folder, **as_user, **quiet}


def _name(url: str) -> str:
    return url.rpartition("/")[2]
