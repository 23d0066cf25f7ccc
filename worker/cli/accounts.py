"""`dashtam accounts`: shows the accounts that were synced; says which of them are the same, and undoes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from worker.cli.ask import ProviderOption, aliases, ask, operator
from worker.cli.output import AsJson, plain, plural, print_json, say, short, show, status, table

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from worker.models.fleet import AccountRow
    from worker.models.identity_rows import ChangeRow, Done

app = typer.Typer(
    help="Show the accounts that were synced; merge two that are the same, split one that is two, and undo it.",
    invoke_without_command=True,
)

All = Annotated[bool, typer.Option("--all", help="Also those that are no longer listed.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000)]
AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Id, or unique beginning of one.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.callback()
def accounts(
    ctx: typer.Context, provider: ProviderOption = None, all_: All = False, limit: Limit = 100, as_json: AsJson = False
) -> None:
    """Without a command, lists the accounts."""
    if ctx.invoked_subcommand is None:
        list_(provider, all_=all_, limit=limit, as_json=as_json)


@app.command("list")
def list_(provider: ProviderOption = None, all_: All = False, limit: Limit = 100, as_json: AsJson = False) -> None:
    """Show the accounts that were synced, with their newest balances.

    [bold]Example[/]

    dashtam accounts list --provider "Schwab one"
    """
    from worker.services.fleet import details

    rows = ask(details.accounts, provider, closed=all_, limit=limit)
    show(rows, as_json=as_json, render=_table)


@app.command()
def merge(
    account: AccountArgument,
    into: Annotated[str, typer.Argument(metavar="INTO", help="The account that stays: id, or beginning of one.")],
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Merge an account into another one of the same user: transactions that both have are then there once.

    The login of the second account goes on stating balances and positions. The login of the first one only adds
    transactions from now on. `dashtam accounts undo` undoes it, also later.

    [bold]Examples[/]

    dashtam accounts merge 0198c2f4-1a2b 0198c2f4-5e6f --dry-run

    dashtam accounts merge 0198c2f4-1a2b 0198c2f4-5e6f --yes
    """
    from worker.services.fleet import merging

    done = _change(merging.merge, account, into, question="Merge them?", dry_run=dry_run, yes=yes)
    _tell(done, dry_run=dry_run, as_json=as_json)


@app.command()
def split(
    account: AccountArgument,
    login: Annotated[
        str | None,
        typer.Option(metavar="PROVIDER", help="The login that gets its own account.", autocompletion=aliases),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give the login or link that came last to an account an account of its own again.

    Transactions that only this login lists move there. Those that others list, too, are in both accounts afterwards.

    [bold]Examples[/]

    dashtam accounts split 0198c2f4-1a2b --dry-run

    dashtam accounts split 0198c2f4-1a2b --login Files --yes
    """
    from worker.services.fleet import merging

    done = _change(merging.split, account, login, question="Split it?", dry_run=dry_run, yes=yes)
    _tell(done, dry_run=dry_run, as_json=as_json)


@app.command()
def undo(
    change: Annotated[str, typer.Argument(metavar="CHANGE", help="Id of a merge or a split, or beginning of one.")],
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Undo a merge or a split. What was synced since then goes to the account whose login has listed it.

    [bold]Example[/]

    dashtam accounts undo 0198c2f4-9abc --yes
    """
    from worker.services.fleet import merging

    done = _change(merging.undo, change, question="Do it?", dry_run=dry_run, yes=yes)
    _tell(done, dry_run=dry_run, as_json=as_json, undoes=True)


@app.command()
def changes(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List merges and splits, newest first, with the ids by which they can be undone.

    [bold]Example[/]

    dashtam accounts changes
    """
    from worker.services.fleet import merging

    show(ask(merging.changes, limit=limit), as_json=as_json, render=_changes)


def _change(
    how: Callable[..., Coroutine[Any, Any, Done]], *named: str | None, question: str, dry_run: bool, yes: bool
) -> Done:
    """Tries the change first. Makes it unless that is all that is wanted, or the person says no."""
    tried = ask(how, *named, actor=operator(), dry_run=True)
    if dry_run:
        return tried
    if not yes:
        typer.confirm(f"{_told(tried)}. {question}", abort=True)
    return ask(how, *named, actor=operator(), dry_run=False)


def _told(done: Done) -> str:
    rows = plural(done.shared, "transaction")
    if done.kind == "merge":
        return f"{rows} in both accounts, {done.moved} in the first one alone"
    return f"{rows} to be in both accounts, {done.moved} to move to the other one"


def _tell(done: Done, *, dry_run: bool, as_json: bool, undoes: bool = False) -> None:
    if as_json:
        told = {"kind": done.kind, "account": done.account_id, "other": done.other_id}
        counts = {"shared": done.shared, "moved": done.moved, "dry_run": dry_run}
        print_json({"change": None if dry_run else done.id} | told | counts)
    elif dry_run:
        say(f"{_told(done)}; nothing was changed")
    elif undoes:
        say(f"undone: {_told(done)}")
    else:
        say(f"done: {_told(done)}. To undo it: dashtam accounts undo {done.id}")


def _changes(rows: list[ChangeRow]) -> RenderableType:
    return table(
        ("id", "what", "account", "other account", "by", "at", "undone"),
        [
            (str(r.id), r.kind, short(r.account_id), short(r.other_id), plain(r.actor), r.created_at, r.undone_at)
            for r in rows
        ],
    )


def _table(rows: list[AccountRow]) -> RenderableType:
    return table(
        ("id", "provider", "account", "ends in", "type", "status", "#current", "#available", "currency", "balance of"),
        [
            (short(r.id), plain(r.provider), plain(r.name), plain(r.mask), r.subtype, status(r.status), r.current,
             r.available, plain(r.currency), r.taken_at)
            for r in rows
        ],
    )  # fmt: skip
