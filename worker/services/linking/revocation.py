"""Revokes grants at their provider. If that fails, it is tried again until the provider confirms it."""

from __future__ import annotations

import asyncio
from uuid import UUID

from worker.crud import revocations
from worker.crud.revocations import Waiting
from worker.errors import EncryptionError, ProviderError, ReauthRequired, Refused, Unavailable
from worker.integrations.kit.base import Caller
from worker.integrations.kit.integration import Integration
from worker.process.clocks import elapsed
from worker.process.logger import Logger
from worker.services.context import Context

log = Logger(__name__)

_BATCH = 50
_SECONDS = 60.0
"""The task has a time limit, and revoking one grant may take `http_total_seconds`."""


async def revoke_waiting(runtime: Context, *, provider_id: UUID | None = None) -> int:
    """Tries to revoke the grants that are due, one after the other; only those of one provider, if it is given.

    After a minute no further grant is begun. The rest is not counted as tried and stays due.

    Returns:
        How many grants need not be tried again.

    Raises:
        Unavailable: Postgres is out of reach; the grants are kept.
    """
    ended, stops_at = 0, elapsed() + _SECONDS
    for _ in range(_BATCH):
        claimed = await runtime.db(revocations.claim_due, limit=1, provider_id=provider_id)
        if not claimed:
            break
        ended += await _try(runtime, claimed[0])
        if elapsed() >= stops_at:
            break
    return ended


async def end_grant(
    runtime: Context, integration: Integration, provider_id: UUID, *, access_token: str, refresh_token: str | None
) -> bool:
    """Revokes a grant. True also if it had ended there before; False if the provider has no call for revoking.

    Raises:
        ProviderError: it could not be revoked; try again.
        TimeoutError: no answer came in time, so it may have been revoked or not.
    """
    caller = Caller(provider_id=provider_id, manual=True)
    try:
        async with asyncio.timeout(runtime.settings.http_total_seconds):
            return await integration.revoke(caller, access_token=access_token, refresh_token=refresh_token)
    except ReauthRequired:
        return True


async def _try(runtime: Context, grant: Waiting) -> bool:
    integration = runtime.integrations.get(grant.provider_key)
    try:
        if integration is None:
            raise Refused(f"the integration {grant.provider_key} is not enabled; add it to INTEGRATIONS")
        access_token, refresh_token = plain(runtime, grant)
        revoked = await end_grant(
            runtime,
            integration,
            grant.provider_id,
            access_token=access_token,
            refresh_token=refresh_token,
        )
    except (ProviderError, TimeoutError, EncryptionError, Refused) as error:
        why = str(error) or type(error).__name__
        log.warning(
            "revocation_failed",
            provider_id=str(grant.provider_id),
            attempts=grant.attempts,
            error=why,
            kept="the grant",
            next="tried again by the upkeep worker",
        )
        await runtime.db(revocations.failed, grant=grant, error=why)
        return False
    await runtime.db(revocations.done, grant=grant, revoked=revoked)
    log.info("grant_ended", provider_id=str(grant.provider_id), revoked=revoked, reason=grant.reason)
    return True


def plain(runtime: Context, grant: Waiting) -> tuple[str, str | None]:
    """The access token and the refresh token of a grant that waits. Raises `EncryptionError`."""

    def unsealed(ciphertext: str, kind: str) -> str:
        return runtime.encryption.unseal(
            ciphertext, provider_id=grant.provider_id, kind=kind, generation=grant.generation, key_id=grant.key_id
        )

    return unsealed(grant.access_token, "access"), grant.refresh_token and unsealed(grant.refresh_token, "refresh")


async def revoke_soon(runtime: Context, provider_id: UUID) -> None:
    """Tries to revoke one provider's grants now. What fails is tried again by the upkeep worker."""
    try:
        await revoke_waiting(runtime, provider_id=provider_id)
    except Unavailable:
        log.warning("revocation_left", provider_id=str(provider_id), next="tried again by the upkeep worker")
