"""`dashtam simplefin`: lets apps read a user's accounts by the SimpleFIN protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.console import RenderableType

from worker.cli.ask import ask, operator
from worker.cli.output import AsJson, plain, print_json, say, show, table

if TYPE_CHECKING:
    from worker.models.simplefin import AccessRow

app = typer.Typer(
    help="Let an app read a user's accounts by the SimpleFIN protocol; list and revoke what it holds.",
    no_args_is_help=True,
)


@app.command()
def create(
    user: Annotated[str, typer.Option(help="E-mail address or id of the user whose accounts the app will see.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "an app",
    account: Annotated[
        list[UUID] | None,
        typer.Option(help="Id of an account; may be given several times. Without: all, also later ones."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a setup token and print it. Paste it into the app, which can use it once, within an hour.

    [bold]Examples[/]

    dashtam simplefin create --user ada@example.org --name "Actual"

    dashtam simplefin create --user ada@example.org --account 01998a3e-5f7c-7d21-9c7e-0f6a2b9d4e11
    """
    from worker.services.linking.users import find_user
    from worker.services.simplefin import accesses

    user_id = ask(find_user, user, create=False)
    made = ask(accesses.create, user_id=user_id, name=name, account_ids=account or [], actor=operator())
    if as_json:
        print_json({"setup_token": made.setup_token, "access": made.row})
    else:
        typer.echo(made.setup_token)


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option(help="Only those of this e-mail address or user id.")] = None,
    ended: Annotated[bool, typer.Option("--ended", help="Those that are revoked or were never used, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List which apps may read, and when they last did.

    [bold]Example[/]

    dashtam simplefin list
    """
    from worker.services.linking.users import find_user
    from worker.services.simplefin import accesses

    user_id = None if user is None else ask(find_user, user, create=False)
    rows = ask(accesses.list_accesses, user_id=user_id, ended=ended, limit=limit)
    show(rows, as_json=as_json, render=_list)


def _list(rows: list[AccessRow]) -> RenderableType:
    columns = ("prefix", "name", "user", "accounts", "state", "created", "by", "claimed", "last used")
    return table(
        columns,
        [
            (
                row.prefix,
                plain(row.name),
                plain(row.user) if row.user else str(row.user_id),
                "all" if row.account_ids is None else str(len(row.account_ids)),
                row.state,
                row.created_at,
                plain(row.created_by),
                row.claimed_at,
                row.last_used_at,
            )
            for row in rows
        ],
    )


@app.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="The prefix, as `list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Take an app's access away. From now on its requests are refused; a setup token that was not used yet is ended.

    [bold]Example[/]

    dashtam simplefin revoke 1f2e3d4c
    """
    from worker.services.simplefin import accesses

    row, changed = ask(accesses.revoke, prefix, actor=operator())
    if as_json:
        print_json({"prefix": row.prefix, "revoked_at": row.revoked_at, "changed": changed})
    else:
        say(f"{plain(row.name)} ({row.prefix}) is revoked{'' if changed else ', as it was'}")
