"""`dashtam database`: creates database roles that have only the rights that they need."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import msgspec
import typer

from worker.cli.exits import UsageProblem
from worker.cli.output import AsJson, pairs, show

app = typer.Typer(help="Prepare the database.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Makes typer treat `roles` as a subcommand although it is the only one."""


@app.command()
def roles(
    prefix: Annotated[str, typer.Option(help="Names begin with it.")] = "dashtam",
    passwords: Annotated[
        bool, typer.Option("--passwords", help='Read {"migrate": …, "app": …, "readonly": …} from standard input.')
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create the roles migrate, app and readonly, or correct them.

    `app` can read and change the tables, but can only read the audit log and add to it; `readonly` cannot read tokens.
    The command uses MIGRATE_DATABASE_URL or DATABASE_URL; the role in it must be allowed to create roles. Run the
    command again after each migration.

    [bold]Examples[/]

    dashtam database roles

    dashtam database roles --passwords < passwords.json
    """
    from worker.services import schema

    made = schema.create_roles(passwords=_passwords() if passwords else None, prefix=prefix)
    show(asdict(made), as_json=as_json, render=lambda names: pairs(list(names.items())))


def _passwords() -> dict[str, str]:
    try:
        return msgspec.json.decode(sys.stdin.buffer.read(), type=dict[str, str])
    except msgspec.MsgspecError:
        raise UsageProblem("standard input is no JSON object of passwords; nothing was changed") from None
