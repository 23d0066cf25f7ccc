"""Alembic's entry: migrates the database of `MIGRATE_DATABASE_URL`, or else `DATABASE_URL`."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

from worker.models import Base
from worker.settings import DatabaseSettings, load

# Two containers that start at once must not migrate at once.
_ADVISORY_LOCK = 0x64617368


def run() -> None:
    """Applies migrations on the connection that the caller gave, or on one of its own."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
        return
    settings = load(DatabaseSettings)
    url = (settings.migrate_database_url or settings.database_url).get_secret_value()
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.begin() as own:
        _migrate(own)


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True, transaction_per_migration=False
    )
    with context.begin_transaction():
        context.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        context.run_migrations()


run()
