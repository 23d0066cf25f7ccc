"""Renews a consent in place: the user logs in again in the provider's own form, and the token stays the same.

For Plaid this is Link in update mode. Linking again with a new public token would create a second Item for the same
login.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID, uuid4

from msgspec import structs

from worker.crud import links, logins
from worker.crud.database import OpenTransaction
from worker.crud.refresh import tokens
from worker.crud.refresh.records import TokenState
from worker.errors import Fenced, NotFound, Refused
from worker.integrations.kit.base import Caller, FormToken
from worker.integrations.kit.integration import Integration
from worker.models import ProviderCreate
from worker.models.vocabulary import ProviderStatus
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.linking import claims
from worker.services.linking.begin import enabled
from worker.services.refresh.lease import store_in_time
from worker.services.refresh.plan import seal_answer

log = Logger(__name__)

_RENEWABLE = (ProviderStatus.ACTIVE, ProviderStatus.NEEDS_REAUTH)


async def find_renewable(runtime: Context, provider_key: str, user_id: UUID, alias: str) -> UUID | None:
    """The login of this user with this alias, if it needs its user and can be renewed in place; otherwise None.

    Raises:
        NotFound: no such integration is enabled.
    """
    if not enabled(runtime, provider_key).can_renew:
        return None
    return await runtime.db(
        links.find_with_token,
        provider_in=ProviderCreate.model_construct(user_id=user_id, provider_key=provider_key, alias=alias),
        status=ProviderStatus.NEEDS_REAUTH,
    )


async def begin_renewal(runtime: Context, provider_id: UUID) -> FormToken:
    """The data that the front end needs to open the provider's form for this login's user. Changes nothing.

    Raises:
        NotFound: no such login.
        Refused: it has no token, is paused or unlinked, or its provider has no renewal in place.
        EncryptionError: the stored token cannot be read.
        ReauthRequired: the provider no longer accepts the token: link the login again.
        ProviderError: the provider did not answer as expected.
    """
    login = await _login(runtime, provider_id)
    return await login.integration.begin_renewal(
        Caller(provider_id=provider_id, manual=True), access_token=login.access_token, user_id=login.user_id
    )


async def complete_renewal(runtime: Context, provider_id: UUID, *, session_id: UUID | None = None) -> None:
    """Makes a login active again after its user has completed the provider's form; its first sync is due at once.

    The provider is asked whether the form was completed. The token is stored as the next generation, as after every
    consent. If this fails, it can be called again. With `session_id`, this link session, which the caller has claimed,
    ends with it.

    Raises:
        ReauthRequired: the provider says that the login still needs its user.
        Refused: the login was linked again in the meantime; or for the reasons given in `begin_renewal`.
        NotFound, EncryptionError, ProviderError: see `begin_renewal`.
        Unavailable: Postgres is out of reach.
    """
    login = await _login(runtime, provider_id)
    state = login.state
    answer = await login.integration.complete_renewal(
        Caller(provider_id=provider_id, manual=True), access_token=login.access_token
    )
    sealed = seal_answer(
        runtime.encryption,
        login.integration.refresh_policy,
        answer,
        provider_id=provider_id,
        generation=login.generation,
        issued_at=state.now,
        new_grant=True,
    )
    token = structs.replace(sealed, provider_key=login.integration.key)

    def store(session: OpenTransaction) -> None:
        links.store_grant(session, token=token, owner=uuid4())
        if session_id is not None:
            claims.finish(session, session_id, provider_id)

    try:
        await store_in_time(runtime, store)
    except Fenced:
        raise Refused(
            "the login was linked anew meanwhile; that link is in use, and nothing else was changed"
        ) from None
    log.info("consent_renewed", provider_id=str(provider_id), provider_key=login.integration.key)


@dataclass(frozen=True, slots=True)
class _Login:
    integration: Integration
    user_id: UUID
    state: TokenState
    generation: int
    access_token: str = field(repr=False)


async def _login(runtime: Context, provider_id: UUID) -> _Login:
    def read(session: OpenTransaction) -> tuple[UUID, TokenState | None]:
        return logins.get(session, provider_id=provider_id).user_id, tokens.read(session, ids=[provider_id]).get(
            provider_id
        )

    user_id, state = await runtime.db(read)
    if state is None:
        raise NotFound(f"no provider has the id {provider_id}")
    integration = enabled(runtime, state.provider_key)
    if not integration.can_renew:
        raise _refused(f"{integration.name} has no renewal in place", ProviderStatus.NEEDS_REAUTH, provider_id)
    if state.status not in _RENEWABLE or state.access_token is None or state.generation is None:
        status = ProviderStatus(state.status)
        raise _refused(f"provider {provider_id} is {status}", status, provider_id)
    access = runtime.encryption.unseal(
        state.access_token, provider_id=provider_id, kind="access", generation=state.generation, key_id=state.key_id
    )
    return _Login(integration, user_id, state, state.generation, access)


def _refused(why: str, status: ProviderStatus, provider_id: UUID) -> Refused:
    return Refused(
        why, for_operators=status.what_to_do(provider_id), for_clients=status.what_a_client_does(provider_id)
    )
