"""What a stored token allows: to be used, to be refreshed, or neither, and why. Pure."""

from __future__ import annotations

from uuid import UUID

from worker.crud.refresh.tokens import TokenState
from worker.errors import NotFound, ReauthRequired, Refused
from worker.models.vocabulary import ProviderStatus
from worker.services.encryption import EncryptionService
from worker.services.refresh import due
from worker.services.refresh.results import AccessToken, Outcome, RefreshResult


def usable(
    state: TokenState | None, *, provider_id: UUID, stale_generation: int | None, encryption: EncryptionService
) -> AccessToken | int:
    """The access token, or the generation of the one that will not do.

    Raises:
        NotFound: no such provider.
        Refused: it is not linked, or paused.
        ReauthRequired: only the user can mend it.
        EncryptionError: the stored token cannot be read.
    """
    if state is None:
        raise NotFound(f"no provider has the id {provider_id}")
    if state.status == ProviderStatus.NEEDS_REAUTH:
        raise ReauthRequired(state.status_reason or "needs_reauth")
    if state.status != ProviderStatus.ACTIVE or state.access_token is None or state.generation is None:
        raise Refused(f"provider {provider_id} is {state.status}: nothing is sent for it until it is linked or resumed")
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


def why_not_leased(state: TokenState | None) -> RefreshResult:
    """Why a lease that was asked for was not given."""
    if state is None or state.generation is None:
        return RefreshResult(Outcome.MISSING, NotFound("no such provider, or it has no token"))
    if state.status == ProviderStatus.NEEDS_REAUTH:
        return RefreshResult(Outcome.INACTIVE, ReauthRequired(state.status_reason or "needs_reauth"))
    if state.status != ProviderStatus.ACTIVE:
        refused = Refused(f"provider {state.provider_id} is {state.status}: nothing is sent for it")
        return RefreshResult(Outcome.INACTIVE, refused)
    return RefreshResult(Outcome.BUSY)
