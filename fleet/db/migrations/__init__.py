"""Alembic migrations; applied by `fleet.db.migrate`."""
