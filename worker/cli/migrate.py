"""`dashtam migrate`: brings the schema to the newest version."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.output import AsJson, plain, show


def migrate(
    revision: Annotated[str, typer.Argument(help="A revision, or head for the newest.")] = "head",
    as_json: AsJson = False,
) -> None:
    """Bring the database's schema to a version, the newest by default.

    Uses MIGRATE_DATABASE_URL if it is set, because the role in DATABASE_URL may not be allowed to change the schema. It
    is safe to run the command twice, or on two machines at the same time.

    [bold]Example[/]

    dashtam migrate
    """
    from worker.services import schema

    schema.upgrade(revision)
    show({"revision": revision}, as_json=as_json, render=lambda _: f"the schema is at {plain(revision)}")
