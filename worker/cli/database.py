"""`dashtam database`: roles with no more rights than they need."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import msgspec
import typer
from sqlalchemy.exc import ProgrammingError

from worker.cli.exits import UsageProblem
from worker.cli.output import AsJson, pairs, show
from worker.crud.database import make_engine, transaction
from worker.crud.roles import create_roles
from worker.errors import Refused
from worker.settings import DatabaseSettings, load

app = typer.Typer(help="Prepare the database.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `roles` a command of its own."""


@app.command()
def roles(
    prefix: Annotated[str, typer.Option(help="Names begin with it.")] = "dashtam",
    passwords: Annotated[
        bool, typer.Option("--passwords", help='Read {"migrate": …, "app": …, "readonly": …} from standard input.')
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create the roles migrate, app and readonly, or mend them.

    `app` works in the tables but only adds to and reads the audit log; `readonly` sees no token. Uses
    MIGRATE_DATABASE_URL or DATABASE_URL, whose role must be allowed to create roles. Run it again after each migration.

    [bold]Examples[/]

    dashtam database roles

    dashtam database roles --passwords < passwords.json
    """
    settings = load(DatabaseSettings)
    url = (settings.migrate_database_url or settings.database_url).get_secret_value()
    given = _passwords() if passwords else None
    engine = make_engine(url, connections=1)
    try:
        with transaction(engine) as session:
            made = create_roles(session, passwords=given, prefix=prefix)
    except ProgrammingError as error:
        name = type(error.orig).__name__
        raise Refused(f"the role of this address may not do that ({name}); nothing was changed") from error
    finally:
        engine.dispose()
    show(asdict(made), as_json=as_json, render=lambda names: pairs(list(names.items())))


def _passwords() -> dict[str, str]:
    try:
        return msgspec.json.decode(sys.stdin.buffer.read(), type=dict[str, str])
    except msgspec.MsgspecError:
        raise UsageProblem("standard input is no JSON object of passwords; nothing was changed") from None
