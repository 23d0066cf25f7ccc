"""`dashtam link`: link a user's login at a provider."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated
from uuid import UUID

import typer

from worker import crud
from worker.cli.exits import UsageProblem
from worker.cli.output import AsJson, SafeConsole, plain, print_json, say
from worker.crud.fleet import overview
from worker.integrations.registry import REGISTRY
from worker.models import User
from worker.runtime import Runtime, get_runtime
from worker.services.linking import connect

_LINE_MAX = 8192
_notes = SafeConsole(stderr=True, highlight=False, soft_wrap=True)


def link(
    integration: Annotated[str, typer.Argument(help="schwab, plaid, …")],
    user: Annotated[str, typer.Option(help="E-mail address or id of the user; a new address makes a new user.")],
    alias: Annotated[str, typer.Option(help="What the user calls this login.")],
    as_json: AsJson = False,
) -> None:
    """Link a login, or renew the consent of one that was linked before under the same alias.

    For schwab: prints the address where the user consents, and takes the address on which the browser lands afterwards.
    For plaid: takes the public token that Plaid's own front end hands over. Both are read from standard input and never
    taken as arguments, which everybody on the machine could see.

    [bold]Examples[/]

    dashtam link schwab --user ada@example.org --alias "My Schwab"

    dashtam link plaid --user ada@example.org --alias "My bank" < public-token.txt
    """
    if integration not in REGISTRY:
        raise UsageProblem(f"no integration is named {integration!r}; there are {', '.join(sorted(REGISTRY))}")
    runtime = get_runtime()
    user_id = _user(runtime, user)
    if REGISTRY[integration].link_kind == "oauth":
        begun = runtime.run(connect.begin_link(runtime, integration, user_id, alias))
        _notes.print("Open this address, consent, and paste the address on which the browser lands:", style="bold")
        _notes.print(begun.url, markup=False)
        callback_url = _secret_line("address: ")
        provider_id = runtime.run(connect.complete_link(runtime, callback_url, holder=begun.holder))
    else:
        token = _secret_line("public token: ")
        provider_id = runtime.run(connect.link_public_token(runtime, integration, user_id, alias, token))
    with runtime.transaction() as session:
        (row,) = overview.list_providers(session, limit=1, ids=[provider_id])
    if as_json:
        print_json(row)
    else:
        say(f"[green]linked[/] {plain(row.alias)} as {row.id}; the schedule takes it from here")


def _user(runtime: Runtime, given: str) -> UUID:
    with runtime.transaction() as session:
        if "@" in given:
            return crud.get_or_create_user(session, email=given).id
        try:
            found = session.get(User, UUID(given))
        except ValueError:
            found = None
        if found is None:
            raise UsageProblem("--user is neither an e-mail address nor the id of a user")
        return found.id


def _secret_line(prompt: str) -> str:
    """One line of standard input; not echoed when a person types it."""
    line = getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline(_LINE_MAX)
    if not line.strip():
        raise UsageProblem("nothing was given on standard input; nothing was linked")
    return line.strip()
