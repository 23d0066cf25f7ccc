"""Ends a link: revokes its grant at the provider and deletes its token; rows are kept."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from worker.crud import links
from worker.crud.refresh import tokens
from worker.crud.refresh.records import TokenState
from worker.errors import EncryptionError, NotFound, ProviderError, Refused
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.linking import revocation

log = Logger(__name__)


async def unlink(runtime: Context, provider_id: UUID, *, actor: str = "user") -> bool:
    """Ends a link: revokes its grant if the provider has a call for that, and deletes its token; rows are kept.

    If the provider cannot be asked now, the grant is kept and tried again until it is revoked: see `revocation`.

    Returns:
        Whether the provider confirmed the revocation.

    Raises:
        NotFound: no such provider.
        Refused: its token is being refreshed now.
    """
    owner = uuid4()
    state = await _lease(runtime, provider_id, owner)
    revoked = await _revoke(runtime, state)
    await runtime.db(
        links.end_link, provider_id=provider_id, actor=actor, revoked=revoked is True, revoke_later=revoked is None
    )
    log.info("unlinked", provider_id=str(provider_id), revoked=revoked is True, revoke_later=revoked is None)
    return revoked is True


async def _lease(runtime: Context, provider_id: UUID, owner: UUID) -> TokenState:
    """Leases the token. Waits while another worker has the lease."""
    give_up_at = asyncio.get_running_loop().time() + runtime.settings.lease_seconds
    while True:
        leased = await runtime.db(
            tokens.lease, ids=[provider_id], owner=owner, seconds=runtime.settings.lease_seconds, active_only=False
        )
        state = (await runtime.db(tokens.read, ids=[provider_id])).get(provider_id)
        if state is None:
            raise NotFound(f"no provider has the id {provider_id}")
        if leased or state.generation is None:
            return state
        if asyncio.get_running_loop().time() >= give_up_at:
            raise Refused(f"provider {provider_id} is being refreshed just now: try again in a minute")
        await asyncio.sleep(0.1)


async def _revoke(runtime: Context, state: TokenState) -> bool | None:
    """Whether the provider has ended the grant; None when it could not be asked."""
    integration = runtime.integrations.get(state.provider_key)
    if state.generation is None or not state.access_token:
        return False
    if integration is None:
        return None
    unseal, bound = runtime.encryption.unseal, (state.provider_id, state.generation, state.key_id)
    try:
        access = unseal(state.access_token, provider_id=bound[0], kind="access", generation=bound[1], key_id=bound[2])
        refresh = state.refresh_token and unseal(
            state.refresh_token, provider_id=bound[0], kind="refresh", generation=bound[1], key_id=bound[2]
        )
        return await revocation.end_grant(
            runtime, integration, state.provider_id, access_token=access, refresh_token=refresh
        )
    except EncryptionError as error:
        log.warning("revocation_failed", provider_id=str(state.provider_id), error=type(error).__name__, kept="nothing")
        return False
    except (ProviderError, TimeoutError) as error:
        log.warning(
            "revocation_failed",
            provider_id=str(state.provider_id),
            error=type(error).__name__,
            kept="the grant",
            next="tried again by the upkeep worker",
        )
        return None
