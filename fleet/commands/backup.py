"""The commands `edgeml fleet backup` and `restore`."""

from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.connection import DATA, AsJson, Data, show

_Database = Annotated[
    str, typer.Option("--database", help="Database URL; SQLite in the data folder by default.")
]


def backup(
    *,
    to: Annotated[Path, typer.Option("--to", help="The file to write; one that is there goes.")],
    with_keys: Annotated[
        bool,
        typer.Option("--with-keys", help="Keys, ledger and TUF's metadata, too: keep it safe."),
    ] = False,
    database: _Database = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Write a backup of the fleet's database, on its machine, while the fleet runs.

    The keys are left out, since they must not be lost or found together with it: copy the folders
    keys and trust elsewhere when they change, or take --with-keys. The registry is left out, too:
    its blobs never change, so that any copy of the folder (rsync) does.
    """
    import msgspec

    from fleet.services.backup import backup as write

    folder = data.expanduser()
    made = write(folder, _url(folder, database), to, with_keys=with_keys)
    keys = "with the keys: keep it as safe as them" if with_keys else "without the keys"
    text = f"{to}: {made.dialect}, revision {made.revision}, {made.bytes:,} bytes, {keys}."
    show(msgspec.to_builtins(made) | {"file": str(to)}, text, as_json=as_json)


def restore(
    file: Annotated[Path, typer.Argument(help="What `edgeml fleet backup` wrote.")],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the database that is there.")
    ] = False,
    database: _Database = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Put a backup back while the fleet is stopped.

    When the fleet starts again, it finds that its database is older than its keys: no rollout
    moves, and each device says at its next hello what it holds, which is taken over. Then:
    edgeml fleet thaw --why "...".
    """
    import msgspec

    from fleet.services.backup import restore as put_back

    folder = data.expanduser()
    found = put_back(folder, _url(folder, database), file, replace=replace)
    text = (
        f"{file} is restored (revision {found.revision}). Start the fleet; it freezes rollouts "
        'until you say: edgeml fleet thaw --why "..."'
    )
    show(msgspec.to_builtins(found), text, as_json=as_json)


def add(app: typer.Typer) -> None:
    """Add them to `edgeml fleet`."""
    app.command("backup")(backup)
    app.command("restore")(restore)


def _url(folder: Path, database: str) -> str:
    from fleet.db.database import sqlite_url

    return database or sqlite_url(folder / "fleet.db")
