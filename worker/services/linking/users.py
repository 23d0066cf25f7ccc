"""Finds or creates the user of a login, by e-mail address or id."""

from __future__ import annotations

from uuid import UUID

from worker import crud
from worker.crud import providers, steering
from worker.crud.database import OpenTransaction
from worker.errors import BadArgument, NotFound
from worker.models import User
from worker.services.context import Context


async def find_user(runtime: Context, given: str, *, create: bool) -> UUID:
    """The id of the user with this e-mail address or id; with `create`, a new address creates a new user.

    Raises:
        BadArgument: `given` is neither an address nor the id of a user.
        NotFound: no user has this address, and `create` is False.
        Refused: mail cannot be sent to this address.
    """

    def find(session: OpenTransaction) -> UUID:
        if "@" in given:
            if create:
                return crud.get_or_create_user(session, email=given).id
            found = providers.find_user(session, email=given)
            if found is None:
                raise NotFound(f"no user has the e-mail address {given}")
            return found.id
        try:
            user = session.get(User, UUID(given))
        except ValueError:
            user = None
        if user is None:
            raise BadArgument("the user is neither an e-mail address nor the id of a user")
        return user.id

    return await runtime.db(find)


async def forget_user(runtime: Context, email: str) -> bool:
    """Deletes a user with all logins and rows; the audit log is kept. False when there is no such user."""
    return await runtime.db(steering.forget_user, email=email)
