"""A backup of the fleet: its database, taken while it runs, and put back while it does not.

The keys lie beside the database and not in it, so that a restored database is known to be an old
one (`fleet.services.recovery`). They are in a backup only where that is asked for, and are put
back only where there are none; the file that says how far the fleet had come (`keys/head.json`) is
in no backup: whatever is restored, the fleet finds that out, freezes and asks its devices.

What is in the registry is in no backup either: blobs never change, any copy of the folder does.
"""

import contextlib
import fcntl
import os
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec
from sqlalchemy import URL, make_url

from cloud_sync.release.blobs import file_digest
from edgeml.errors import ToolchainError, UserError
from fleet.db import Database
from fleet.keys import OPERATOR_TOKEN
from fleet.version import version

FORMAT = 1
_MANIFEST = "manifest.json"
_DATABASE = {"sqlite": "fleet.db", "postgresql": "fleet.dump"}
_KEYS = ("keys", "trust", OPERATOR_TOKEN)
_NEVER = frozenset({"keys/head.json"})
_MAX_MANIFEST = 1 << 16
_PRIVATE = 0o600
_WHAT = "The backup cannot be restored."
_TLS_OPTIONS = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is; `revision` is that of the database's tables, `digest` of its file."""

    format: int
    edgeml: str
    dialect: str
    revision: str
    digest: str
    bytes: int
    with_keys: bool


def backup(data: Path, database_url: str, target: Path, *, with_keys: bool = False) -> Manifest:
    """Write a backup into a file that only its owner may read; the fleet may be running.

    Args:
        data: the fleet's data folder.
        database_url: of its database.
        target: the file, which is replaced whole.
        with_keys: put the keys, the ledger and TUF's metadata beside the database into it.

    Raises:
        UserError: the database or the file cannot be used.
        ToolchainError: PostgreSQL's programs are not installed.
    """
    url = make_url(database_url)
    dialect = url.get_backend_name()
    with tempfile.TemporaryDirectory(prefix="edgeml-backup-") as folder, _told(target):
        copy = Path(folder) / _DATABASE[dialect]
        revision = _revision(database_url)
        if dialect == "sqlite":
            _copy_sqlite(Path(url.database or ""), copy)
        else:
            _run("pg_dump", url, "--format=custom", "--no-owner", "--file", str(copy))
        manifest = Manifest(
            format=FORMAT,
            edgeml=version(),
            dialect=dialect,
            revision=revision,
            digest=file_digest(copy),
            bytes=copy.stat().st_size,
            with_keys=with_keys,
        )
        (Path(folder) / _MANIFEST).write_bytes(msgspec.json.encode(manifest))
        members = [(Path(folder) / _MANIFEST, _MANIFEST), (copy, copy.name)]
        _write(target, members + (_key_files(data) if with_keys else []))
    return manifest


def restore(data: Path, database_url: str, source: Path, *, replace: bool = False) -> Manifest:
    """Put a backup's database back, and its keys where there are none; the fleet must not run.

    An SQLite database that is there is kept beside it, as `fleet.db.replaced`.

    Args:
        data: the fleet's data folder.
        database_url: of its database.
        source: the backup.
        replace: the database that is there may go.

    Raises:
        UserError: the file is no backup, the fleet runs, there is a database, or there are no keys.
        ToolchainError: PostgreSQL's programs are not installed.
    """
    url = make_url(database_url)
    data.mkdir(parents=True, mode=0o700, exist_ok=True)
    with _told(source), _stopped(data), _opened(source) as archive:
        manifest = _read_manifest(archive)
        if manifest.dialect != url.get_backend_name():
            raise UserError(
                _WHAT,
                why=f"It is of {manifest.dialect}, the fleet's database is "
                f"{url.get_backend_name()}.",
                fix="Name the database with --database.",
            )
        if not replace and _is_there(url):
            raise UserError(
                _WHAT,
                why=f"There is a database: {url.render_as_string()}.",
                fix="Give --replace to put the backup in its place.",
            )
        if not (data / "keys").is_dir() and not manifest.with_keys:
            raise UserError(
                _WHAT,
                why=f"There are no keys in {data}, and none in the backup.",
                fix="Put the folder keys of this fleet there first, or take a backup that was made "
                "with --with-keys. Without its keys, every device would have to be enrolled anew.",
            )
        with tempfile.TemporaryDirectory(dir=data, prefix=".restoring-") as folder:
            copy = Path(folder) / _DATABASE[manifest.dialect]
            _extract(archive, copy.name, copy)
            if file_digest(copy) != manifest.digest:
                raise UserError(_WHAT, why="The database in it is damaged.")
            if not (data / "keys").is_dir():
                _put_keys(archive, data)
            if manifest.dialect == "sqlite":
                _put_sqlite(copy, Path(url.database or ""))
            else:
                options = ("--clean", "--if-exists", "--no-owner", "--single-transaction")
                _run("pg_restore", url, *options, "--dbname", str(url.database), str(copy))
    return manifest


def _revision(database_url: str) -> str:
    from alembic.runtime.migration import MigrationContext

    database = Database(database_url)
    try:
        with database.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() or ""
    except Exception as error:
        raise UserError("The fleet's database cannot be read.", why=f"{error}.") from error
    finally:
        database.close()


def _copy_sqlite(file: Path, copy: Path) -> None:
    """SQLite's own online backup: one consistent state, whoever writes meanwhile."""
    with (
        contextlib.closing(sqlite3.connect(file)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        [(found,)] = target.execute("PRAGMA quick_check(1)").fetchall()
        if found != "ok":
            raise UserError("The fleet's database is damaged.", why=f"{found}.")


def _put_sqlite(copy: Path, file: Path) -> None:
    """Replace a database; the one that was there is kept with its log beside it."""
    with copy.open("rb") as handle:
        os.fsync(handle.fileno())
    for end in ("", "-wal", "-shm"):
        old = file.with_name(file.name + end)
        if old.exists():
            old.replace(file.with_name(f"{file.name}.replaced{end}"))
    copy.chmod(_PRIVATE)
    copy.replace(file)


def _is_there(url: URL) -> bool:
    if url.get_backend_name() == "sqlite":
        return Path(url.database or "").exists()
    return bool(_revision(url.render_as_string(hide_password=False)))


def _run(program: str, url: URL, *arguments: str) -> None:
    """Run a program of PostgreSQL's; the password is in its environment, for nobody to see."""
    where = {
        "PGHOST": url.host or url.query.get("host", ""),
        "PGPORT": str(url.port or ""),
        "PGUSER": url.username or "",
        "PGPASSWORD": str(url.password or ""),
        "PGDATABASE": url.database or "",
        **{name: url.query.get(option, "") for option, name in _TLS_OPTIONS.items()},
    }
    environment = os.environ | {name: str(value) for name, value in where.items() if value}
    try:
        done = subprocess.run(
            [program, "--no-password", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise ToolchainError(
            f"{program} is not installed.", fix="apt-get install postgresql-client"
        ) from error
    if done.returncode:
        raise UserError(f"{program} failed.", why=f"{done.stderr.strip()[-500:]}.")


def _key_files(data: Path) -> list[tuple[Path, str]]:
    files = []
    for name in _KEYS:
        top = data / name
        for path in [top, *sorted(top.rglob("*"))] if top.is_dir() else [top]:
            inside = path.relative_to(data).as_posix()
            if path.is_file() and inside not in _NEVER:
                files.append((path, inside))
    return files


def _write(target: Path, members: list[tuple[Path, str]]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w") as archive:
                for path, inside in members:
                    archive.add(path, inside, recursive=False)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read_manifest(archive: tarfile.TarFile) -> Manifest:
    try:
        member = archive.getmember(_MANIFEST)
        stream = archive.extractfile(member)
        assert stream is not None
        manifest = msgspec.json.decode(stream.read(_MAX_MANIFEST), type=Manifest)
    except (KeyError, AssertionError, msgspec.DecodeError, ValueError) as error:
        raise UserError(_WHAT, why="It is no backup of a fleet.") from error
    if manifest.format != FORMAT or manifest.dialect not in _DATABASE:
        raise UserError(_WHAT, why=f"Its format {manifest.format} is not known.")
    return manifest


def _put_keys(archive: tarfile.TarFile, data: Path) -> None:
    """The keys of a backup, but for what says how far the fleet had come."""
    with tempfile.TemporaryDirectory(dir=data, prefix=".keys-") as folder:
        for member in archive.getmembers():
            path = PurePosixPath(member.name)
            is_ours = path.parts[:1] and path.parts[0] in _KEYS and ".." not in path.parts
            if member.isfile() and is_ours and member.name not in _NEVER:
                target = Path(folder).joinpath(*path.parts)
                target.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
                _extract(archive, member.name, target)
        # The folder of the keys last: it says that they are there.
        for name in reversed(_KEYS):
            made = Path(folder) / name
            if made.exists() and not (data / name).exists():
                made.replace(data / name)


def _extract(archive: tarfile.TarFile, name: str, target: Path) -> None:
    try:
        stream = archive.extractfile(name)
    except KeyError:
        stream = None
    if stream is None:
        raise UserError(_WHAT, why=f"It has no {name}.")
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
    with os.fdopen(handle, "wb") as out:
        while piece := stream.read(1 << 20):
            out.write(piece)


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        archive = tarfile.open(source, mode="r:")  # noqa: SIM115 -- closed below
    except tarfile.TarError as error:
        raise UserError(_WHAT, why=f"{source} is no backup of a fleet: {error}.") from error
    with archive:
        try:
            yield archive
        except tarfile.TarError as error:
            raise UserError(_WHAT, why=f"{source} is damaged: {error}.") from error


@contextlib.contextmanager
def _stopped(data: Path) -> Iterator[None]:
    """Hold the lock that a running fleet has."""
    with (data / "fleet.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                _WHAT, why=f"A fleet is running on {data}.", fix="Stop it first."
            ) from None
        yield


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """Say of a fault of the disk what it is."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"The backup {file} cannot be used.", why=f"{error}.") from error
