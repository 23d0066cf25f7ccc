"""`dashtam link`: links a user's login at a provider."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Annotated, NamedTuple
from uuid import UUID

import typer

from worker.cli.ask import IntegrationArgument, ask, remember_names
from worker.cli.exits import UsageProblem
from worker.cli.output import AsJson, SafeConsole, plain, print_json, say
from worker.errors import NotFound, Refused

if TYPE_CHECKING:
    from worker.integrations.kit.link_kinds import FormField, LinkKind
    from worker.services.linking.begin import LinkBegun

_LINE_MAX = 8192
_FILE_MAX = 64 * 1024
_notes = SafeConsole(stderr=True, highlight=False, soft_wrap=True)


def link(
    integration: IntegrationArgument,
    user: Annotated[str, typer.Option(help="E-mail address or id of the user.")],
    alias: Annotated[str, typer.Option(help="What the user calls this login.")],
    create_user: Annotated[
        bool, typer.Option("--create-user", help="Make a new user when nobody has this e-mail address.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Link it although it is linked under another alias already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Link a login, or renew the consent of one that was linked before under the same alias.

    If the provider has an address for consent, the command prints it, and then asks for the address to which the
    browser was sent back. Where a bank must be chosen before, it first asks for words of the bank's name. Otherwise it
    asks for what the provider gave the user: a token, or a key and its secret. It reads this from standard input, line
    by line, and never from arguments, which everybody on the machine could see.

    For a login at Plaid that needs its user, the command prints a token for Link in update mode: give it to your front
    end. Press Enter when the user has finished. If you enter a new public token instead, the login is linked again.

    [bold]Examples[/]

    dashtam link schwab --user ada@example.org --create-user --alias "My Schwab"

    dashtam link plaid --user ada@example.org --alias "My bank" < public-token.txt
    """
    from worker.services.fleet import looking
    from worker.services.linking import renew

    kind = ask(looking.link_kind, integration)
    user_id = _user(user, create=create_user)
    wanted = Wanted(integration, user_id, alias)
    renewable = ask(renew.find_renewable, integration, user_id, alias)
    if renewable is None:
        provider_id = _linked(kind, wanted, anyway=anyway)
    else:
        provider_id = _renewed(renewable, kind, wanted, anyway=anyway)
    row = ask(looking.provider_by_id, provider_id)
    remember_names()
    if as_json:
        print_json(row)
    else:
        say(f"[green]linked[/] {plain(row.alias)} as {row.id}; the schedule refreshes and syncs it from now on")


class Wanted(NamedTuple):
    """The login to link: the arguments of the linking services."""

    integration: str
    user_id: UUID
    alias: str


def _linked(kind: LinkKind, wanted: Wanted, *, anyway: bool) -> UUID:
    from worker.services.linking import complete

    if not kind.redirects:
        return ask(complete.link_with_form, *wanted, _filled_in(kind), anyway=anyway)
    begun = _begun(kind, wanted, anyway=anyway)
    _notes.print("Open this address, consent, and paste the address on which the browser lands:", style="bold")
    _notes.print(begun.url, markup=False)
    (callback_url,) = _filled_in(kind).values()
    return ask(complete.complete_link, callback_url, holder=begun.holder)


def _begun(kind: LinkKind, wanted: Wanted, *, anyway: bool) -> LinkBegun:
    """Asks for what must be known before the consent. A person at a terminal may correct what does not fit."""
    from worker.services.linking import begin

    while True:
        form = {field.name: _asked(field) for field in kind.asks}
        try:
            return ask(begin.begin_link, *wanted, form=form, anyway=anyway)
        except Refused as error:
            if not (kind.asks and sys.stdin.isatty()):
                raise
            _notes.print(str(error), markup=False)


def _renewed(provider_id: UUID, kind: LinkKind, wanted: Wanted, *, anyway: bool) -> UUID:
    """Lets the user renew the consent; if a new token is entered instead, links the login again."""
    from worker.errors import ProviderError
    from worker.services.linking import complete, renew

    try:
        begun = ask(renew.begin_renewal, provider_id)
    except ProviderError as error:
        _notes.print(f"This login cannot be renewed in place ({error}), so it is linked anew.", markup=False)
        return _linked(kind, wanted, anyway=anyway)
    until = "" if begun.expires_at is None else f", valid until {plain(begun.expires_at)}"
    _notes.print(f"Token with which your front end opens Link in update mode{until}:", style="bold")
    _notes.print(begun.link_token, markup=False)
    (field,) = kind.fields
    given = _line(field, f"Press Enter when the user has finished, or paste a new {field.label}: ").strip()
    if given:
        return ask(complete.link_with_form, *wanted, {field.name: given}, anyway=anyway)
    ask(renew.complete_renewal, provider_id)
    return provider_id


def _user(given: str, *, create: bool) -> UUID:
    """The user with this address. If there is none, asks a person whether to make one; programs need --create-user."""
    from worker.services.linking.users import find_user

    try:
        return ask(find_user, given, create=create)
    except NotFound as error:
        if not sys.stdin.isatty():
            raise NotFound(f"{error}; nothing was linked. To make a new user, add --create-user") from None
        typer.confirm(f"{error}. Make a new user?", abort=True, err=True)
        return ask(find_user, given, create=True)


def _filled_in(kind: LinkKind) -> dict[str, str]:
    """The form's fields, read in order from standard input: one line each; a field of several lines takes the rest."""
    return {field.name: _asked(field) for field in kind.fields}


def _asked(field: FormField) -> str:
    """The value of one field. A secret is not shown when a person types it."""
    if field.lines:
        if sys.stdin.isatty():
            _notes.print(f"{field.label}, then Ctrl-D on a line of its own:")
        given = sys.stdin.read(_FILE_MAX)
    else:
        given = _line(field, f"{field.label}: ")
    if not given.strip():
        raise UsageProblem("nothing was given on standard input; nothing was linked")
    return given.strip()


def _line(field: FormField, prompt: str) -> str:
    """One line, which may be empty. Raises `UsageProblem` at the end of standard input."""
    if sys.stdin.isatty():
        return (getpass.getpass if field.secret else input)(prompt)
    given = sys.stdin.readline(_LINE_MAX)
    if not given:
        raise UsageProblem("nothing was given on standard input; nothing was linked")
    return given
