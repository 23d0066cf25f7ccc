"""The schema as a whole: its version, and the roles that may use it."""

from __future__ import annotations

from collections.abc import Mapping

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from worker.crud import roles
from worker.crud.database import make_engine, transaction, why_unavailable
from worker.crud.roles import Roles
from worker.errors import Refused, Unavailable
from worker.settings import DatabaseSettings, load


def upgrade(revision: str = "head") -> None:
    """Applies the migrations that are missing, each in a transaction of its own.

    Raises:
        Unavailable: Postgres is out of reach, or others held a lock for too long; what was applied by then is kept.
    """
    try:
        command.upgrade(_config(), revision)
    except (OperationalError, InterfaceError) as error:
        is_locked = isinstance(error.orig, LockNotAvailable)
        what = "Postgres: a table was locked by others" if is_locked else why_unavailable(error)
        raise Unavailable(
            f"{what}; migrations that were finished are kept, the one under way was undone; run again: dashtam migrate"
        ) from error


def versions(session: Session) -> tuple[str | None, str | None]:
    """The schema's version as it is, and as this code wants it."""
    return (
        MigrationContext.configure(session.connection()).get_current_revision(),
        ScriptDirectory.from_config(_config()).get_current_head(),
    )


def create_roles(*, passwords: Mapping[str, str] | None, prefix: str) -> Roles:
    """Creates or mends the roles, as the role that may migrate.

    Raises:
        Refused: that role may not create others; nothing was changed.
        ConfigurationError: see `worker.crud.roles`.
    """
    settings = load(DatabaseSettings)
    url = (settings.migrate_database_url or settings.database_url).get_secret_value()
    engine = make_engine(url, connections=1, limits=settings)
    try:
        with transaction(engine) as session:
            return roles.create_roles(session, passwords=passwords, prefix=prefix)
    except ProgrammingError as error:
        name = type(error.orig).__name__
        raise Refused(f"the role of this address may not do that ({name}); nothing was changed") from error
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "worker:migrations")
    return config
