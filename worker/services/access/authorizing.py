"""Linking through the HTTP API: gives an existing login its grant, shows it and ends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from worker.crud import logins
from worker.crud.database import OpenTransaction
from worker.crud.fleet import overview
from worker.errors import BadArgument, NotFound, Refused
from worker.integrations.kit.base import FormToken
from worker.models import ProviderCreate
from worker.models.fleet import LoginRow, TokenFacts
from worker.services.access.keys import Principal
from worker.services.access.logins import own, require_own
from worker.services.context import Context
from worker.services.fleet import asking
from worker.services.fleet.asking import Send
from worker.services.linking import begin, complete, end, renew
from worker.services.linking.begin import LinkBegun
from worker.services.linking.duplicates import ANYWAY, LinkedAlready


@dataclass(frozen=True, slots=True)
class Grant:
    """What a user may see of a login's grant.

    Attributes:
        token: facts about the token; None while there is none.
        access_expires_at: when the access token expires; None when it does not expire.
    """

    login: LoginRow
    token: TokenFacts | None
    access_expires_at: datetime | None

    @property
    def is_connected(self) -> bool:
        """Whether there is a grant that works, as far as we know."""
        return self.token is not None and self.login.is_linked


async def begin_authorization(
    runtime: Context, principal: Principal, provider_id: UUID, form: Mapping[str, str]
) -> LinkBegun:
    """The address at which the user gives consent. The result's `holder` is to be set in the browser's cookie.

    Args:
        runtime: the process's context.
        principal: who asks.
        provider_id: the login.
        form: what the user has filled in before the consent, if the integration asks for something.

    Raises:
        NotFound, NotPermitted: see `logins.own`.
        BadArgument: this integration is not configured, is not linked by an address, or the form is incomplete.
        ProviderError: the provider has made no address for consent.
    """
    login = await own(runtime, principal, provider_id)
    try:
        filled = {name: value for name, value in form.items() if name != ANYWAY}
        named = (login.provider_key, login.user_id, login.alias)
        return await begin.begin_link(runtime, *named, form=filled, anyway=ANYWAY in form)
    except (NotFound, Refused) as error:
        raise BadArgument(str(error)) from None


async def complete_authorization(runtime: Context, provider_id: UUID, *, query: str, holder: str) -> Grant:
    """Completes an authorisation: the query of the callback becomes a grant.

    Args:
        runtime: the process's context.
        provider_id: the login that the authorisation must belong to.
        query: the whole query string, unchanged.
        holder: the secret in the browser's cookie.

    Raises:
        NotFound: no such login or integration.
        Refused: the user declined; or the state is unknown, expired, used, or belongs to another login or browser.
        ProviderError: the provider refused the code.
    """
    expected = await _named(runtime, provider_id)
    return await _complete(runtime, expected.provider_key, query, holder, expected)


async def complete_at(runtime: Context, provider_key: str, *, query: str, holder: str) -> Grant:
    """The same for the one callback address that an integration uses for all its users.

    Raises:
        NotFound, Refused, ProviderError: see `complete_authorization`.
    """
    return await _complete(runtime, provider_key, query, holder, None)


async def _complete(
    runtime: Context, provider_key: str, query: str, holder: str, expected: ProviderCreate | None
) -> Grant:
    integration = begin.enabled(runtime, provider_key)
    if not integration.link_kind.redirects:
        raise Refused(f"{integration.name} is not linked by an address: start linking again")
    callback_url = f"{integration.redirect_uri}?{query}"
    linked = await complete.complete_link(runtime, callback_url, holder=holder, expected=expected)
    return await runtime.db(_grant, linked)


async def authorize_with_form(
    runtime: Context, principal: Principal, provider_id: UUID, form: Mapping[str, str]
) -> Grant:
    """Links a login with what the user filled in: a public token, a key and its secret, ….

    Raises:
        NotFound, NotPermitted: see `logins.own`.
        BadArgument: this integration is not configured, is linked by an address, or the form is incomplete.
        LinkedAlready: the login is linked already, and the form does not say `anyway`.
        ProviderError: the provider refused what was filled in.
    """
    login = await own(runtime, principal, provider_id)
    kind = begin.enabled(runtime, login.provider_key).link_kind
    try:
        filled = kind.checked({name: value for name, value in form.items() if name != ANYWAY})
        named = (login.provider_key, login.user_id, login.alias)
        linked = await complete.link_with_form(runtime, *named, filled, anyway=ANYWAY in form)
    except LinkedAlready:
        raise
    except Refused as error:
        raise BadArgument(str(error)) from None
    return await runtime.db(_grant, linked)


async def begin_renewal(runtime: Context, principal: Principal, provider_id: UUID) -> FormToken:
    """What opens the provider's own form for the login's user, to renew the consent.

    Raises:
        NotFound, NotPermitted: see `logins.own`.
        Refused, ProviderError: see `renew.begin_renewal`.
    """
    await own(runtime, principal, provider_id)
    return await renew.begin_renewal(runtime, provider_id)


async def complete_renewal(runtime: Context, principal: Principal, provider_id: UUID) -> Grant:
    """Makes the login active again once its user has completed that form. Raises what `begin_renewal` raises."""
    await own(runtime, principal, provider_id)
    await renew.complete_renewal(runtime, provider_id)
    return await runtime.db(_grant, provider_id)


async def grant(runtime: Context, principal: Principal, provider_id: UUID) -> Grant:
    """The login's grant, as its owner may see it. Raises what `logins.own` raises."""

    def read(session: OpenTransaction) -> Grant:
        require_own(session, principal, provider_id)
        return _grant(session, provider_id)

    return await runtime.db(read)


async def refresh(runtime: Context, principal: Principal, provider_id: UUID, *, send: Send) -> Grant:
    """Asks for a refresh now.

    Raises:
        NotFound: there is no such login, or it has no grant.
        NotPermitted: see `logins.own`.
        Refused: its tokens are not refreshed, or the login or its integration is paused.
        Unavailable: the broker is out of reach; the refresh is due, so the schedule will send it.
    """
    found = await grant(runtime, principal, provider_id)
    if found.token is None:
        raise NotFound("this provider has no authorization; POST to this address begins one")
    await asking.refresh(runtime, str(provider_id), send=send)
    return found


async def end_authorization(runtime: Context, principal: Principal, provider_id: UUID) -> None:
    """Ends the grant, and revokes it at the provider if the provider has a call for that; rows are kept.

    Raises:
        NotFound: there is no such login, or it has no grant.
        NotPermitted: see `logins.own`.
        Refused: its token is being refreshed now.
    """
    if (await grant(runtime, principal, provider_id)).token is None:
        raise NotFound("this provider has no authorization; there is nothing to end")
    await end.unlink(runtime, provider_id, actor=principal.actor)


async def _named(runtime: Context, provider_id: UUID) -> ProviderCreate:
    found = await runtime.db(logins.get, provider_id=provider_id)
    return ProviderCreate(user_id=found.user_id, provider_key=found.provider_key, alias=found.alias)


def _grant(session: OpenTransaction, provider_id: UUID) -> Grant:
    (row,) = overview.list_providers(session, limit=1, ids=[provider_id])
    login = logins.get(session, provider_id=provider_id)
    return Grant(login, overview.token_facts(session, provider_id=provider_id), row.access_expires_at)
