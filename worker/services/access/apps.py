"""SimpleFIN accesses for the owner of an API key: users make and revoke their own, operators those of all."""

from __future__ import annotations

from worker.errors import BadArgument
from worker.models.simplefin import AccessRow
from worker.services.access.keys import Principal
from worker.services.context import Context
from worker.services.linking.users import find_user
from worker.services.simplefin import accesses
from worker.services.simplefin.accesses import AccessMade

_MOST = 100


async def listed(runtime: Context, principal: Principal) -> list[AccessRow]:
    """The accesses that the owner of the key sees and that have not ended."""
    return await accesses.list_accesses(runtime, user_id=principal.user_id, ended=False, limit=_MOST)


async def create(runtime: Context, principal: Principal, *, name: str, user: str, base_url: str) -> AccessMade:
    """Makes an access for the key's user, or with an operator's key for the user with this e-mail address.

    Raises:
        BadArgument: the name cannot be used, or it is not clear whose accounts the app will see.
        NotFound: there is no such user.
    """
    user_id = principal.user_id
    if user_id is None:
        if not user.strip():
            raise BadArgument("name the user whose accounts the app will see, by e-mail address; nothing was made")
        user_id = await find_user(runtime, user.strip(), create=False)
    return await accesses.create(
        runtime, user_id=user_id, name=name, account_ids=(), actor=principal.actor, base_url=base_url
    )


async def revoke(runtime: Context, principal: Principal, prefix: str) -> None:
    """Ends an access. Raises `NotFound` if the owner of the key sees none with this prefix."""
    await accesses.revoke(runtime, prefix, actor=principal.actor, user_id=principal.user_id)
