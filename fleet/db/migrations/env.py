"""Alembic's entry: runs migrations on the engine that `fleet.db.migrate` hands over."""

from alembic import context
from sqlalchemy import Engine

from fleet.db.tables import Table


def run() -> None:
    """Run the migrations, or compare the tables with the database."""
    engine: Engine = context.config.attributes["engine"]
    with engine.connect() as connection:
        connection.execution_options(writes=True)
        context.configure(
            connection=connection,
            target_metadata=Table.metadata,
            compare_type=True,
            render_as_batch=True,
            # SQLite can, with `fleet.db.database`: a migration is done wholly or not at all.
            transactional_ddl=True,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
