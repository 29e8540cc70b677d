"""Brings a database to this version's tables, with Alembic's migrations inside the package."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from edgeml.errors import UserError
from fleet.db.database import Database

_FOLDER = Path(__file__).parent / "migrations"


def config(database: Database) -> Config:
    """Alembic's configuration for a database."""
    made = Config()
    made.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    made.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    made.attributes["engine"] = database.engine
    return made


def upgrade(database: Database) -> None:
    """Run the migrations that are missing.

    Raises:
        UserError: the database cannot be used, or a newer edgeml has written it.
    """
    try:
        command.upgrade(config(database), "head")
    except CommandError as error:
        raise UserError(
            "The fleet's database cannot be brought up to date.",
            why=f"{error}.",
            fix="A newer edgeml may have written it: use that, or another --data folder.",
        ) from error
    except DBAPIError as error:
        raise UserError(
            "The fleet's database cannot be used.",
            why=f"{error.orig}.",
            fix="Check the file's rights and the disk, or restore a backup.",
        ) from error
