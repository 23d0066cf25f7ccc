"""Link sessions: a person links one login in a browser, on pages of ours, and goes back to who asked.

Two secrets protect a session. Its token is in the address that the person opens. The browser that acts first makes the
other one, and from then on the session can be used only there.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from typing import NamedTuple
from uuid import UUID

from worker.crud import link_sessions, logins
from worker.crud.database import OpenTransaction
from worker.errors import NotFound, ProviderError, Refused, Taken
from worker.integrations.kit.base import Caller, FormToken
from worker.integrations.kit.integration import Integration
from worker.models import ProviderCreate
from worker.models.link_session import LinkSessionRow, NewLinkSession
from worker.models.vocabulary import LinkSessionState
from worker.services.context import Context
from worker.services.linking import begin, claims, complete, renew
from worker.services.linking.begin import LinkBegun, checked, enabled, hashed
from worker.services.linking.duplicates import ANYWAY

ALIAS, RENEWING = "alias", "renewing"
"""Fields of a page's form which do not belong to the integration's form."""

_UNKNOWN = "this page belongs to no link session of this browser: open the address that you were given once more"
_ELSEWHERE = "this link session is used in another browser: go on there, or ask for a new one"


class Held(NamedTuple):
    """The secrets that a browser has of a session: that of the address, and its own."""

    token: str
    browser: str


@dataclass(frozen=True, slots=True)
class SessionMade:
    """A new session. Its token is known only now."""

    row: LinkSessionRow
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FormOpened:
    """The provider's own form can be shown.

    Attributes:
        renewing: it renews a consent, so that nothing is exchanged after it.
        anyway: the login may be linked under another name already.
    """

    token: FormToken
    renewing: bool
    anyway: bool = False


async def create(runtime: Context, new: NewLinkSession) -> SessionMade:
    """Makes a session that lasts for `link_session_seconds`.

    Raises:
        NotFound: no such integration is enabled.
        Taken: its user has a login of this name already.
    """
    if new.provider_key is not None:
        enabled(runtime, new.provider_key)
    token = secrets.token_urlsafe(32)

    def store(session: OpenTransaction) -> LinkSessionRow:
        if new.alias is not None and new.provider_id is None:
            _refuse_linked(session, new.user_id, new.provider_key, new.alias)
        seconds = runtime.settings.link_session_seconds
        return link_sessions.create(session, new=new, token_hash=hashed(token), seconds=seconds)

    return SessionMade(await runtime.db(store), token)


async def enter(runtime: Context, token: str) -> tuple[LinkSessionRow, Held]:
    """The session of an address, and what a browser that opens it for the first time is to hold. Changes nothing.

    Raises:
        NotFound: there is no such session.
    """
    row = await runtime.db(link_sessions.by_token, token_hash=hashed(token))
    return row, Held(token, secrets.token_urlsafe(32))


async def look(runtime: Context, session_id: UUID, held: Held) -> LinkSessionRow:
    """The session, if this browser may see it. It may have ended.

    Raises:
        NotFound: there is no such session, or the browser does not hold its token.
        Refused: another browser uses it.
    """
    try:
        row = await runtime.db(link_sessions.get, session_id=session_id)
    except NotFound:
        raise NotFound(_UNKNOWN) from None
    if not compare_digest(hashed(held.token), row.token_hash):
        raise NotFound(_UNKNOWN)
    if row.browser_hash is not None and not compare_digest(hashed(held.browser), row.browser_hash):
        raise Refused(_ELSEWHERE)
    return row


async def cancel(runtime: Context, session_id: UUID, held: Held) -> LinkSessionRow:
    """Ends a session without a link. One that has ended already stays as it is. Raises what `look` raises."""
    await look(runtime, session_id, held)
    await runtime.db(link_sessions.end, session_id=session_id, state=LinkSessionState.CANCELLED)
    return await look(runtime, session_id, held)


async def proceed(
    runtime: Context, session_id: UUID, held: Held, provider_key: str, form: Mapping[str, str]
) -> LinkBegun | FormOpened | LinkSessionRow:
    """The next step after the person has pressed the button of a page.

    Args:
        runtime: the process's context.
        session_id: the session.
        held: the browser's secrets.
        provider_key: the integration that the person sees on the page.
        form: what the person filled in: fields of the link form, and those above.

    Returns:
        The address for consent, the provider's own form to show, or the session, which has ended with a link.

    Raises:
        NotFound: see `look`; or no such integration is enabled.
        Refused: see `look`; or the session has ended; or what was filled in cannot be used.
        ProviderError: the provider refused, or did not answer.
    """
    row = await look(runtime, session_id, held)
    integration = offered(runtime, row, provider_key)
    if integration.reads_files:
        raise Refused("its data comes in files, and no file was given; nothing was stored. Choose a file on this page")
    login = await _login(runtime, row, integration, form.get(ALIAS, ""))
    if not await runtime.db(link_sessions.bind, session_id=row.id, browser_hash=hashed(held.browser)):
        raise Refused("this link session has ended or has expired; nothing was changed")
    filled = {name: value for name, value in form.items() if name not in (ALIAS, RENEWING, ANYWAY)}
    if integration.link_kind.redirects:
        named = (login.provider_key, login.user_id, login.alias)
        return await begin.begin_link(runtime, *named, form=filled, session_id=row.id, anyway=ANYWAY in form)
    if integration.front_end is not None and not any(filled.values()):
        return replace(await _open_form(runtime, row, integration), anyway=ANYWAY in form)
    await _complete(runtime, row, login, filled, renewing=RENEWING in form, anyway=ANYWAY in form)
    return await look(runtime, session_id, held)


def offered(runtime: Context, row: LinkSessionRow, provider_key: str) -> Integration:
    """The integration with this key, if it can be linked in this session. Raises `NotFound` if it cannot."""
    if row.provider_key not in (None, provider_key):
        raise NotFound("this link session is for another institution")
    return enabled(runtime, provider_key)


async def of_state(runtime: Context, query: str, holder: str) -> LinkSessionRow | None:
    """The session that a browser continues when a provider sends it back; None if it began no session.

    Args:
        runtime: the process's context.
        query: the whole query string, unchanged.
        holder: the secret in the browser's cookie for this state.
    """
    state_hash = hashed(begin.state_in(query))
    return await runtime.db(link_sessions.of_state, state_hash=state_hash, holder_hash=hashed(holder))


async def read(runtime: Context, session_id: UUID) -> LinkSessionRow:
    """One session. Raises `NotFound` if there is none."""
    return await runtime.db(link_sessions.get, session_id=session_id)


async def _login(runtime: Context, row: LinkSessionRow, integration: Integration, given: str) -> ProviderCreate:
    """The login to link: the one of the session, or a new one with the name that the session or the person says."""

    def find(session: OpenTransaction) -> str:
        if row.provider_id is not None:
            return logins.get(session, provider_id=row.provider_id).alias
        alias = (row.alias or given).strip()
        _refuse_linked(session, row.user_id, integration.key, alias)
        return alias

    return checked(row.user_id, integration.key, await runtime.db(find))


def _refuse_linked(session: OpenTransaction, user_id: UUID, provider_key: str | None, alias: str) -> None:
    """Raises `Taken` if the user has a login of this name that is linked, or is of another integration."""
    found = {login.provider_key for login in logins.by_alias(session, user_id=user_id, alias=alias)}
    if found - {provider_key}:
        raise Taken(claims.TAKEN)
    if provider_key is not None and found:
        named = ProviderCreate.model_construct(user_id=user_id, provider_key=provider_key, alias=alias)
        claims.refuse_linked(session, named)


async def _open_form(runtime: Context, row: LinkSessionRow, integration: Integration) -> FormOpened:
    """Opens the provider's form: to renew the login's consent if that is possible, otherwise for a new consent."""
    if row.provider_id is not None and integration.can_renew:
        try:
            return FormOpened(await renew.begin_renewal(runtime, row.provider_id), renewing=True)
        except (ProviderError, Refused):
            pass  # the provider has forgotten this login, or it was never linked: it is linked anew
    caller = Caller(manual=True)
    return FormOpened(await integration.open_front_end(caller, user_id=row.user_id), renewing=False)


async def _complete(
    runtime: Context,
    row: LinkSessionRow,
    login: ProviderCreate,
    filled: Mapping[str, str],
    *,
    renewing: bool,
    anyway: bool,
) -> None:
    def take(session: OpenTransaction) -> None:
        claims.take(session, row.id, seconds=runtime.settings.lease_seconds)

    await runtime.db(take)
    async with claims.released(runtime, row.id):
        if renewing and row.provider_id is not None:
            await renew.complete_renewal(runtime, row.provider_id, session_id=row.id)
        else:
            named = (login.provider_key, login.user_id, login.alias)
            await complete.link_with_form(runtime, *named, filled, session_id=row.id, anyway=anyway)
