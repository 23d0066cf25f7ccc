"""Gives the access token for a call; refreshes it first if it has expired or was refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from worker.crud.refresh import tokens
from worker.crud.refresh.records import TokenState
from worker.errors import NotFound, ReauthRequired, Refused, Scope, Transient
from worker.integrations.kit.base import Caller
from worker.models.vocabulary import ProviderStatus, Trigger
from worker.process.clocks import elapsed
from worker.services.context import Context
from worker.services.encryption import EncryptionService
from worker.services.refresh import due
from worker.services.refresh.protocol import refresh_providers
from worker.services.refresh.results import Outcome

_REFRESHES_IN_A_ROW = 3
"""More than one, since the first may only store an old answer from the journal. Limited, since a provider whose tokens
expire at once must not get call after call."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token.

    Attributes:
        generation: its generation; pass it as `stale_generation` if the provider refuses the token.
        expires_at: None when it does not expire.
    """

    value: str = field(repr=False)
    generation: int
    expires_at: datetime | None


async def access_token(
    runtime: Context,
    provider_id: UUID,
    *,
    caller: Caller,
    stale_generation: int | None = None,
    known: TokenState | None = None,
) -> AccessToken:
    """The access token for a call; it is refreshed first if it has expired or was refused.

    While another worker refreshes it, this function waits and then reads it again.

    Args:
        runtime: the process's context.
        provider_id: the login.
        caller: with `manual` it may use the share of the quota that is reserved for people who wait.
        stale_generation: generation of a token that the provider has just refused.
        known: the state of the token, if it was read a moment ago.

    Raises:
        NotFound: no such provider.
        Refused: it is not linked, or paused.
        ReauthRequired: only the user can repair it.
        EncryptionError: the stored token cannot be read.
        ProviderError: the refresh failed and will be tried again later.
        Unavailable: Postgres is out of reach.
    """
    give_up_at = elapsed() + 2 * runtime.settings.lease_seconds
    pause = 0.02
    left = _REFRESHES_IN_A_ROW
    while True:
        state = known or (await runtime.db(tokens.read, ids=[provider_id])).get(provider_id)
        known = None
        token = usable(state, provider_id=provider_id, stale_generation=stale_generation, encryption=runtime.encryption)
        if isinstance(token, AccessToken):
            return token
        # The token just read cannot be used. If another worker has stored a newer one by then, nothing is sent.
        refresh = asyncio.ensure_future(
            refresh_providers(
                runtime, [provider_id], trigger=Trigger.SYNC, manual=caller.manual, stale_generation=token
            )
        )
        try:
            summary = await asyncio.shield(refresh)
        except asyncio.CancelledError:
            # When the sync is ended by a fence, the refresh must still store its answer. Its deadline limits the wait.
            await asyncio.gather(refresh, return_exceptions=True)
            raise
        result = summary.results[provider_id]
        if result.outcome is Outcome.BUSY:
            if elapsed() >= give_up_at:
                raise Transient("refresh_in_progress")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        elif result.error is not None:
            raise result.error
        elif result.outcome is Outcome.REFRESHED:
            left -= 1
            if left == 0:
                raise Transient("token_expires_at_once", scope=Scope.PROVIDER)


def usable(
    state: TokenState | None, *, provider_id: UUID, stale_generation: int | None, encryption: EncryptionService
) -> AccessToken | int:
    """The access token, or the generation of the stored one if that cannot be used.

    Raises:
        NotFound: no such provider.
        Refused: it is not linked, or paused.
        ReauthRequired: only the user can repair it.
        EncryptionError: the stored token cannot be read.
    """
    if state is None:
        raise NotFound(f"no provider has the id {provider_id}")
    if state.status == ProviderStatus.NEEDS_REAUTH:
        raise ReauthRequired(state.status_reason or "needs_reauth")
    if state.status != ProviderStatus.ACTIVE or state.access_token is None or state.generation is None:
        raise Refused(
            f"provider {provider_id} is {state.status}, so nothing is sent for it;"
            f" {ProviderStatus(state.status).what_to_do(provider_id)}"
        )
    if state.generation == stale_generation:
        if state.refresh_token is None:
            raise ReauthRequired("access_refused")
        return state.generation
    if not due.is_usable(state.now, expires_at=state.access_expires_at, lifetime=state.lifetime):
        return state.generation
    value = encryption.unseal(
        state.access_token, provider_id=provider_id, kind="access", generation=state.generation, key_id=state.key_id
    )
    return AccessToken(value, state.generation, state.access_expires_at)
