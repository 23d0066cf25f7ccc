"""Alembic's entry: migrates the database of `MIGRATE_DATABASE_URL`, or else `DATABASE_URL`.

Workers of the release before go on meanwhile. Each migration is therefore a transaction of its own, and waits for a
table's lock a few seconds only: who queues for a lock holds up all that come after him.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from worker.crud.database import make_engine, missing_limits
from worker.errors import ConfigurationError
from worker.models import every_table
from worker.settings import DatabaseSettings, load

# Two containers that start at once must not migrate at once.
_ADVISORY_LOCK = 0x64617368
_LOCK_TIMEOUT = "5s"
_SECONDS = 6 * 3600.0


def run() -> None:
    """Applies migrations on the connection that the caller gave, or on one of its own."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
        return
    settings = load(DatabaseSettings)
    url = (settings.migrate_database_url or settings.database_url).get_secret_value()
    # A large table takes its time, and so may another migration that is under way.
    limits = settings.model_copy(update={"database_step_seconds": _SECONDS, "database_pooler": False})
    engine = make_engine(url, connections=1, limits=limits)
    try:
        with engine.connect() as own:
            _require_session(own)
            own.execute(
                text("SELECT set_config('lock_timeout', '0', false), set_config('statement_timeout', '0', false)")
            )
            _migrate(own)
    finally:
        engine.dispose()


def _require_session(connection: Connection) -> None:
    """Refuses a pooler that drops our options: behind it, two migrations could run at once."""
    if missing_limits(connection):
        raise ConfigurationError(
            "MIGRATE_DATABASE_URL: it leads to a pooler, which drops the limits of our connections; nothing was"
            " migrated. Set it to the address of Postgres itself; then: dashtam migrate"
        )
    connection.rollback()


def _migrate(connection: Connection) -> None:
    """Takes turns with others by a lock of the session: a transaction's would end with the first migration."""
    connection.execute(text(f"SELECT pg_advisory_lock({_ADVISORY_LOCK})"))
    timeout = context.config.attributes.get("lock_timeout", _LOCK_TIMEOUT)
    connection.execute(text("SELECT set_config('lock_timeout', :timeout, false)"), {"timeout": timeout})
    connection.commit()  # with none open, Alembic begins and commits one for each migration
    try:
        context.configure(
            connection=connection, target_metadata=every_table(), compare_type=True, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text(f"SELECT pg_advisory_unlock({_ADVISORY_LOCK})"))
        connection.commit()


run()
