"""Plays the part of an app that lets its user link logins, for the demonstration of `dashtam run`."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from worker.crud import logins
from worker.crud.database import OpenTransaction
from worker.crud.logins import LoginQuery
from worker.errors import NotFound
from worker.models.fleet import LoginRow
from worker.models.link_session import LinkSessionRow, NewLinkSession
from worker.services.context import Context
from worker.services.linking import return_urls, sessions
from worker.services.linking.sessions import SessionMade
from worker.services.linking.users import find_user

_MOST = 50


class Seen(NamedTuple):
    """What the page shows: the user's logins, newest first, and the link session that the browser comes back from."""

    user: str
    logins: list[LoginRow]
    session: LinkSessionRow | None


async def look(runtime: Context, session_id: UUID | None) -> Seen:
    """The logins of the demonstration's user.

    Raises:
        NotFound: there is no demonstration here, or no such session of it.
    """
    user_id = await _user(runtime)
    session = None if session_id is None else await sessions.read(runtime, session_id)
    if session is not None and session.user_id != user_id:
        raise NotFound("this link session is not of the demonstration")
    rows = await runtime.db(logins.page, query=LoginQuery(user_id, per_page=_MOST))
    return Seen(runtime.settings.demonstration_user, rows, session)


async def begin(runtime: Context, provider_id: UUID | None, return_url: str) -> SessionMade:
    """Makes a link session, for a new login or to link one again.

    Raises:
        NotFound: there is no demonstration here, or no such login of its user.
        BadArgument: `LINK_RETURN_ORIGINS` does not have the demonstration's own address.
    """
    user_id = await _user(runtime)

    def key(session: OpenTransaction) -> str | None:
        if provider_id is None:
            return None
        login = logins.get(session, provider_id=provider_id)
        if login.user_id != user_id:
            raise NotFound("this login is not of the demonstration")
        return login.provider_key

    new = NewLinkSession(
        user_id=user_id,
        provider_key=await runtime.db(key),
        alias=None,
        provider_id=provider_id,
        return_url=return_urls.checked(return_url, runtime.settings.return_origins),
        asked_by="The demonstration",
        key_id=None,
        created_by="operator:demonstration",
    )
    return await sessions.create(runtime, new)


async def _user(runtime: Context) -> UUID:
    email = runtime.settings.demonstration_user
    if not email:
        raise NotFound("there is no demonstration here; `dashtam run` has one")
    return await find_user(runtime, email, create=True)
