"""Logins for the owner of an API key to read and change: users have their own logins, operators have all."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from worker.crud import logins
from worker.crud.database import OpenTransaction
from worker.crud.logins import SORTS, LoginQuery
from worker.errors import BadArgument, NotPermitted
from worker.models import ProviderCreate
from worker.models.fleet import LoginRow
from worker.process.clocks import elapsed
from worker.services.access.keys import Principal
from worker.services.context import Context
from worker.services.linking import end

_LARGE = 10_000
_REMEMBERED_SECONDS = 10.0


async def own(runtime: Context, principal: Principal, provider_id: UUID) -> LoginRow:
    """The login with this id, if the owner of the key may see it.

    Raises:
        NotFound: there is none.
        NotPermitted: it belongs to another user.
    """
    return await runtime.db(require_own, principal, provider_id)


def require_own(session: OpenTransaction, principal: Principal, provider_id: UUID) -> LoginRow:
    """The same in an open transaction."""
    found = logins.get(session, provider_id=provider_id)
    if principal.user_id not in (None, found.user_id):
        raise NotPermitted("this provider belongs to another user")
    return found


class Totals:
    """Remembers large numbers of logins for some seconds: counting 100,000 takes longer than all else of a request.

    Numbers below `_LARGE` are always counted anew, so a user sees at once what they have created or removed.
    """

    def __init__(self) -> None:
        self._known: dict[LoginQuery, tuple[int, float]] = {}

    def recall(self, query: LoginQuery) -> int | None:
        """The number of logins that the query finds; None if it must be counted."""
        total, until = self._known.get(_any_page(query), (0, 0.0))
        return total if elapsed() < until else None

    def remember(self, query: LoginQuery, total: int) -> None:
        """Remembers a number if it is large."""
        if total >= _LARGE:
            self._known = {of: (found, until) for of, (found, until) in self._known.items() if elapsed() < until}
            self._known[_any_page(query)] = (total, elapsed() + _REMEMBERED_SECONDS)


def _any_page(query: LoginQuery) -> LoginQuery:
    return replace(query, page=1, per_page=1, sort="created_at", descending=True)


async def page(runtime: Context, totals: Totals, query: LoginQuery) -> tuple[list[LoginRow], int]:
    """One page of logins, and the number of logins on all pages.

    Raises:
        BadArgument: `query.sort` is not one of the allowed sort keys.
    """
    if query.sort not in SORTS:
        raise BadArgument(f"there is no order by this; sort by one of {', '.join(SORTS)}")

    def read(session: OpenTransaction) -> tuple[list[LoginRow], int]:
        found = logins.page(session, query=query)
        seen = (query.page - 1) * query.per_page + len(found)
        if len(found) < query.per_page and (found or query.page == 1):  # the last page
            return found, seen
        total = totals.recall(query)
        if total is None:
            total = logins.count(session, query=query)
            totals.remember(query, total)
        return found, max(total, seen) if found else total

    return await runtime.db(read)


async def create(runtime: Context, principal: Principal, *, provider_key: str, alias: str) -> LoginRow:
    """Creates a login that can then be linked. It belongs to the key's user, or to the operator.

    Raises:
        BadArgument: no such integration is enabled.
        Taken: the user already has a login with this alias.
    """
    if provider_key not in runtime.integrations:
        raise BadArgument(f"no integration of this key is configured; there are {', '.join(runtime.integrations)}")

    def make(session: OpenTransaction) -> LoginRow:
        user_id = principal.user_id or logins.operator_user(session)
        provider_in = ProviderCreate(user_id=user_id, provider_key=provider_key, alias=alias)
        return logins.create(session, provider_in=provider_in, actor=principal.actor)

    return await runtime.db(make)


async def rename(runtime: Context, principal: Principal, provider_id: UUID, *, alias: str) -> LoginRow:
    """Gives a login another alias.

    Raises:
        NotFound, NotPermitted: see `own`.
        Taken: the user already has another login with this alias.
    """

    def change(session: OpenTransaction) -> LoginRow:
        require_own(session, principal, provider_id)
        return logins.rename(session, provider_id=provider_id, alias=alias, actor=principal.actor)

    return await runtime.db(change)


async def remove(runtime: Context, principal: Principal, provider_id: UUID) -> tuple[LoginRow, bool]:
    """Ends the link and deletes the login with all its rows; the audit log is kept.

    Returns:
        The login as it was, and whether the provider confirmed that the grant has ended. If the provider could not be
        asked, it is asked again until it confirms.

    Raises:
        NotFound, NotPermitted: see `own`.
        Refused: its token is being refreshed now, or it was linked again in the meantime.
    """
    login = await own(runtime, principal, provider_id)
    revoked = await end.unlink(runtime, provider_id, actor=principal.actor)
    await runtime.db(logins.remove, provider_id=provider_id, actor=principal.actor)
    return login, revoked


__all__ = ["LoginQuery", "Totals", "create", "own", "page", "remove", "rename", "require_own"]
