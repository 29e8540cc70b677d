"""The fleet's database: typed tables, migrations, and who may write when.

State lives here, never in the broker. SQLite (WAL) by default, PostgreSQL by URL; nothing in
the tables or the queries belongs to one of them alone.
"""

from fleet.db.database import Database
from fleet.db.migrate import upgrade

__all__ = ["Database", "upgrade"]
