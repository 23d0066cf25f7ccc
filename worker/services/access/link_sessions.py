"""Link sessions for the owner of an API key: make one for a user's browser, and read what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from worker.crud import logins
from worker.errors import BadArgument, NotFound, NotPermitted, Refused
from worker.models.fleet import LoginRow
from worker.models.link_session import LinkSessionRow, NewLinkSession
from worker.services.access.keys import Principal
from worker.services.access.logins import require_own
from worker.services.context import Context
from worker.services.linking import return_urls, sessions, users
from worker.services.linking.sessions import SessionMade


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an app asks for.

    Attributes:
        provider_id: a login to link again or to renew; it decides user, integration and alias.
        user: e-mail address of the user whose login it will be; only for an operator's key.
    """

    provider_key: str | None = None
    alias: str | None = None
    provider_id: UUID | None = None
    return_url: str | None = None
    user: str | None = None


async def create(runtime: Context, principal: Principal, wanted: Wanted) -> SessionMade:
    """Makes a link session.

    Raises:
        BadArgument: no such integration is enabled, the browser may not go back to this address, or what is asked for
            does not fit together.
        NotFound, NotPermitted: see `logins.own`; a user's key names another user.
        Taken: the user has a login of this name already.
    """
    return_url = wanted.return_url
    if return_url is not None:
        return_urls.checked(return_url, runtime.settings.return_origins)
    login = await _login(runtime, principal, wanted)
    new = NewLinkSession(
        user_id=await _user(runtime, principal, wanted) if login is None else login.user_id,
        provider_key=wanted.provider_key if login is None else login.provider_key,
        alias=wanted.alias,
        provider_id=wanted.provider_id,
        return_url=return_url,
        asked_by=principal.name,
        key_id=principal.key_id,
        created_by=principal.actor,
    )
    try:
        return await sessions.create(runtime, new)
    except NotFound as error:
        raise BadArgument(str(error)) from None


async def _login(runtime: Context, principal: Principal, wanted: Wanted) -> LoginRow | None:
    if wanted.provider_id is None:
        return None
    if wanted.provider_key is not None or wanted.alias is not None or wanted.user is not None:
        raise BadArgument("provider_id names the login: leave out provider_key, alias and user; nothing was made")
    return await runtime.db(require_own, principal, wanted.provider_id)


async def _user(runtime: Context, principal: Principal, wanted: Wanted) -> UUID:
    if principal.user_id is not None:
        if wanted.user is not None:
            raise NotPermitted("this API key belongs to one user: leave out user")
        return principal.user_id
    if wanted.user is None:
        return await runtime.db(logins.operator_user)
    if "@" not in wanted.user:
        raise BadArgument("user is no e-mail address; nothing was made")
    try:
        return await users.find_user(runtime, wanted.user, create=True)
    except Refused as error:
        raise BadArgument(str(error)) from None


async def own(runtime: Context, principal: Principal, session_id: UUID) -> LinkSessionRow:
    """A link session.

    Raises:
        NotFound: there is none.
        NotPermitted: it belongs to another user.
    """
    row = await sessions.read(runtime, session_id)
    if principal.user_id not in (None, row.user_id):
        raise NotPermitted("this link session belongs to another user")
    return row
