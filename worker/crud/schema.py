"""The database schema: its version, its migrations, and the roles that may use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from worker import migrations
from worker.crud.database import make_engine, transaction
from worker.crud.unreachable import unavailable
from worker.errors import Refused, Unavailable
from worker.settings import DatabaseSettings, load

if TYPE_CHECKING:
    from alembic.config import Config

    from worker.crud.roles import Roles

_VERSIONS = Path(migrations.__path__[0]) / "versions"


def upgrade(revision: str = "head") -> None:
    """Applies the missing migrations, each in its own transaction.

    Raises:
        Unavailable: Postgres is out of reach, or a lock was held for too long; the migrations applied so far are kept.
    """
    from alembic import command  # a slow import, which callers that only ask for versions do not need

    try:
        command.upgrade(_config(), revision)
    except (OperationalError, InterfaceError) as error:
        kept = "migrations that were finished are kept, the one under way was undone"
        if isinstance(error.orig, LockNotAvailable):
            raise Unavailable(f"Postgres: a table was locked by others; {kept}; run again: dashtam migrate") from error
        told = unavailable(error) or Unavailable(f"Postgres: {type(error).__name__}")
        raise Unavailable(f"{told}; {kept}", server=told.server, silent=told.silent) from error


def versions(session: Session) -> tuple[str | None, str]:
    """The schema's version in the database (None before the first migration), and the version that this code needs."""
    there = session.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    now = session.scalar(text("SELECT version_num FROM alembic_version")) if there else None
    return now, wanted()


def wanted() -> str:
    """The version that this code needs: the number with which the newest migration's file name begins.

    Alembic has the same information, but only after it has imported every migration.
    """
    return max(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*_*.py"))


def create_roles(*, passwords: Mapping[str, str] | None, prefix: str) -> Roles:
    """Creates or corrects the roles, as the role that may migrate the schema.

    Raises:
        Refused: that role may not create other roles; nothing was changed.
        ConfigurationError: see `worker.crud.roles`.
    """
    from worker.crud import roles  # asks for every table, which callers that only ask for versions do not need

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
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "worker:migrations")
    return config
