"""`dashtam migrate`: brings the schema to the newest version."""

from __future__ import annotations

from typing import Annotated

import typer
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InterfaceError, OperationalError

from worker.cli.output import AsJson, plain, show
from worker.errors import Unavailable
from worker.runtime import get_runtime


def migrate(
    revision: Annotated[str, typer.Argument(help="A revision, or head for the newest.")] = "head",
    as_json: AsJson = False,
) -> None:
    """Bring the database's schema to a version, the newest by default.

    Uses MIGRATE_DATABASE_URL when DATABASE_URL's role may not change the schema. Safe to run twice and from two
    machines at once.

    [bold]Example[/]

    dashtam migrate
    """
    upgrade(revision)
    show({"revision": revision}, as_json=as_json, render=lambda _: f"the schema is at {plain(revision)}")


def upgrade(revision: str = "head") -> None:
    """Applies what is missing.

    Raises:
        Unavailable: Postgres is out of reach; nothing was changed.
    """
    try:
        command.upgrade(_config(), revision)
    except (OperationalError, InterfaceError) as error:
        raise Unavailable(f"Postgres: {type(error.orig).__name__}; the schema was not changed") from error


def versions(connection: Connection) -> tuple[str | None, str | None]:
    """The schema's version as it is, and as this code wants it."""
    return (
        MigrationContext.configure(connection).get_current_revision(),
        ScriptDirectory.from_config(_config()).get_current_head(),
    )


def current() -> tuple[str | None, str | None]:
    """The same on a connection of its own."""
    with get_runtime().transaction() as session:
        return versions(session.connection())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "worker:migrations")
    return config
