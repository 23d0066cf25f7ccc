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
from worker.integrations.kit.link_kinds import FormField, LinkKind
from worker.integrations.registry import REGISTRY
from worker.models import User
from worker.runtime import Runtime, get_runtime
from worker.services.linking import begin, complete

_LINE_MAX = 8192
_FILE_MAX = 64 * 1024
_notes = SafeConsole(stderr=True, highlight=False, soft_wrap=True)


def link(
    integration: Annotated[str, typer.Argument(help="schwab, plaid, …")],
    user: Annotated[str, typer.Option(help="E-mail address or id of the user; a new address makes a new user.")],
    alias: Annotated[str, typer.Option(help="What the user calls this login.")],
    as_json: AsJson = False,
) -> None:
    """Link a login, or renew the consent of one that was linked before under the same alias.

    Where the provider has an address for consent, it is printed, and the address on which the browser lands afterwards
    is asked for. Elsewhere what the provider gave the user is asked for: a token, or a key and its secret. All of it is
    read from standard input, line by line, and never taken as an argument, which everybody on the machine could see.

    [bold]Examples[/]

    dashtam link schwab --user ada@example.org --alias "My Schwab"

    dashtam link plaid --user ada@example.org --alias "My bank" < public-token.txt
    """
    if integration not in REGISTRY:
        raise UsageProblem(f"no integration is named {integration!r}; there are {', '.join(sorted(REGISTRY))}")
    runtime = get_runtime()
    user_id = _user(runtime, user)
    kind = REGISTRY[integration].link_kind
    if kind.redirects:
        begun = runtime.run(begin.begin_link(runtime, integration, user_id, alias))
        _notes.print("Open this address, consent, and paste the address on which the browser lands:", style="bold")
        _notes.print(begun.url, markup=False)
        (callback_url,) = _filled_in(kind).values()
        provider_id = runtime.run(complete.complete_link(runtime, callback_url, holder=begun.holder))
    else:
        form = _filled_in(kind)
        provider_id = runtime.run(complete.link_with_form(runtime, integration, user_id, alias, form))
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


def _filled_in(kind: LinkKind) -> dict[str, str]:
    """What standard input says to each field of the form, in its order: a line, or all the rest for several lines."""
    return {field.name: _asked(field) for field in kind.fields}


def _asked(field: FormField) -> str:
    """A secret is not echoed when a person types it."""
    if field.lines:
        if sys.stdin.isatty():
            _notes.print(f"{field.label}, then Ctrl-D on a line of its own:")
        given = sys.stdin.read(_FILE_MAX)
    elif not sys.stdin.isatty():
        given = sys.stdin.readline(_LINE_MAX)
    else:
        given = (getpass.getpass if field.secret else input)(f"{field.label}: ")
    if not given.strip():
        raise UsageProblem("nothing was given on standard input; nothing was linked")
    return given.strip()
