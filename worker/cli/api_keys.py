"""`dashtam api-keys`: makes, lists and revokes keys of the HTTP API."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.console import RenderableType

from worker.cli.ask import ask, operator
from worker.cli.output import AsJson, plain, print_json, say, show, table

if TYPE_CHECKING:
    from worker.models.access import ApiKeyRow

app = typer.Typer(help="Make, list and revoke keys of the HTTP API.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for.")],
    user: Annotated[
        str | None, typer.Option(help="E-mail address or id of the user whose rows it may see; without: an operator's.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, link, operate or hooks; may be given several times. Without: read.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Days until it expires; without: never.")] = None,
    create_user: Annotated[
        bool, typer.Option("--create-user", help="Make a new user when nobody has this e-mail address.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown only once, because only its hash is stored.

    [bold]Examples[/]

    dashtam api-keys create --name "Ada's app" --user ada@example.org --scope read --scope link

    dashtam api-keys create --name "operations" --scope read --scope operate --days 90
    """
    from worker.services.access import keys

    made = ask(
        keys.create,
        name=name,
        scopes=scope or ["read"],
        user_id=_user(user, create=create_user),
        lifetime=None if days is None else timedelta(days=days),
        actor=operator(),
    )
    if as_json:
        print_json({"key": made.key, "api_key": made.row})
    else:
        typer.echo(made.key)


def _user(given: str | None, *, create: bool) -> UUID | None:
    from worker.services.linking.users import find_user

    return None if given is None else ask(find_user, given, create=create)


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option(help="Only those of this e-mail address or user id.")] = None,
    revoked: Annotated[bool, typer.Option("--revoked", help="Those that were revoked, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List keys by their prefixes.

    [bold]Example[/]

    dashtam api-keys list
    """
    from worker.services.access import keys

    rows = ask(keys.list_keys, user_id=_user(user, create=False), revoked=revoked, limit=limit)
    show(rows, as_json=as_json, render=_list)


def _list(rows: list[ApiKeyRow]) -> RenderableType:
    columns = ("prefix", "name", "user", "scopes", "created", "by", "expires", "revoked")
    return table(
        columns,
        [
            (
                row.prefix,
                plain(row.name),
                plain(row.user) if row.user_id else "an operator",
                " ".join(row.scopes),
                row.created_at,
                plain(row.created_by),
                row.expires_at,
                row.revoked_at,
            )
            for row in rows
        ],
    )


@app.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="The eight characters after `dashtam_`, as `list` shows them.")],
    as_json: AsJson = False,
) -> None:
    """Revoke a key. From now on, requests with it are refused.

    [bold]Example[/]

    dashtam api-keys revoke 1f2e3d4c
    """
    from worker.services.access import keys

    row, changed = ask(keys.revoke, prefix, actor=operator())
    if as_json:
        print_json({"prefix": row.prefix, "revoked_at": row.revoked_at, "changed": changed})
    else:
        say(f"{plain(row.name)} ({row.prefix}) is revoked{'' if changed else ', as it was'}")
