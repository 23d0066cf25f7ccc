"""`dashtam import`: reads a file that a bank has handed out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.ask import aliases, ask
from worker.cli.exits import Failed, UsageProblem
from worker.cli.output import AsJson, plain, plural, show

if TYPE_CHECKING:
    from worker.services.sync.importing import Imported


def import_(
    file: Annotated[Path, typer.Argument(help="The file, as it was downloaded.")],
    user: Annotated[str | None, typer.Option(help="E-mail address or id of the user.")] = None,
    provider: Annotated[
        str,
        typer.Option(
            metavar="PROVIDER",
            help="The login that has the accounts of files: alias, or beginning of its id. A new alias makes one.",
            autocompletion=aliases,
        ),
    ] = "Files",
    create_user: Annotated[
        bool, typer.Option("--create-user", help="Make a new user when nobody has this e-mail address.")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="What a column of a CSV file means: NAME=COLUMN, several times.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is in the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Store what is in a file that a bank has handed out.

    Importing a file again changes nothing, and files may overlap. A file never withdraws what it does not list. Exits 1
    if the run failed.

    [bold]Examples[/]

    dashtam import statement.ofx --dry-run

    dashtam import statement.ofx --user ada@example.org

    dashtam import statement.csv --dry-run --set currency=EUR --set account=DE02120300000000202051
    """
    from worker.integrations.kit.base import MOST_FILE_BYTES
    from worker.services.linking.users import find_user
    from worker.services.sync import importing

    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_FILE_BYTES + 1)  # a longer file is refused
    except OSError as error:
        raise UsageProblem(f"{file} cannot be read: {error.strerror}; nothing was stored") from None
    if user is None and not dry_run:
        raise UsageProblem("name the user: --user; nothing was stored")
    options = dict(_option(given) for given in set_ or ())
    if dry_run or user is None:
        done = ask(importing.look_at, content, options=options)
    else:
        ask(importing.look_at, content, options=options)  # a file that cannot be read makes no user
        user_id = ask(find_user, user, create=create_user)
        alias = ask(importing.alias_of, user_id, provider)
        done = ask(importing.import_file, content, user_id=user_id, alias=alias, options=options)
    show(done, as_json=as_json, render=_told)
    if done.run is not None and done.run.status == "failed":
        raise Failed(f"the run failed ({done.run.error}); see: dashtam runs show {done.run.id}")


def _option(given: str) -> tuple[str, str]:
    name, sign, value = given.partition("=")
    if not sign:
        raise UsageProblem("--set takes NAME=VALUE; nothing was stored")
    return name.strip(), value.strip()


def _told(done: Imported) -> str:
    lines = [
        f"{plain(one.account)}: {one.first} to {one.last}, {plural(one.rows, 'transaction')}"
        + (f", {plain(one.balance)} {one.currency} at the end" if one.balance is not None else "")
        + (f", {plural(one.refused, 'record')} that cannot be read" if one.refused else "")
        for one in done.statements
    ]
    if done.run is None:
        if done.proposal:
            proposed = " ".join(f"--set '{plain(name)}={plain(value)}'" for name, value in done.proposal.items())
            lines.append(f"confirm what the columns mean, fill in what is empty, or change it: {proposed}")
        return "\n".join([f"{done.format} file; nothing was stored:", *lines])
    run = done.run
    counts = f"{run.added} added, {run.changed} changed, {run.unchanged} unchanged, {run.quarantined} in quarantine"
    return "\n".join([f"{done.format} file: {counts}", *lines])
