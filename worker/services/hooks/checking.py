"""Asks providers for the state of logins: because a hook says that it may have changed, or to set the hooks' address.

A login that needs its user and works again at the provider becomes active again. An active login that no longer works
needs its user. The provider's answer decides, never the hook.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from worker.crud import hooks
from worker.crud.refresh import reauth, tokens
from worker.errors import (
    DashtamError,
    InstitutionDown,
    RateLimited,
    ReauthRequired,
    Transient,
    Unavailable,
)
from worker.integrations.kit.base import Caller
from worker.models.vocabulary import ProviderStatus
from worker.process.logger import Logger
from worker.services.availability import breaker
from worker.services.context import Context
from worker.services.hooks.addresses import wanted_url
from worker.services.linking import renew
from worker.services.refresh.access_token import access_token

log = Logger(__name__)

_AT_ONCE = 8
_BATCH = 50
_SECONDS = 40.0
_CLAIM = timedelta(minutes=5)
_MAY_PASS = (Transient, InstitutionDown, RateLimited)


async def claim_checks(runtime: Context, now: datetime) -> list[list[UUID]]:
    """Claims the logins whose check is due, per integration, in batches. None while an integration is paused or down.

    Raises:
        Unavailable: Postgres is out of reach; all work is kept.
    """
    allowed = await breaker.claimable(runtime, now, endpoint=None, at_most=_BATCH)
    batches = []
    for key, limit in allowed.items():
        if limit > 0 and runtime.integrations[key].can_check:
            ids = await runtime.db(hooks.claim_checks, provider_key=key, now=now, limit=limit, claim=_claim(runtime))
            if ids:
                batches.append(list(ids))
    return batches


def _claim(runtime: Context) -> timedelta:
    return max(_CLAIM, timedelta(seconds=runtime.settings.task_time_limit))


async def check_logins(runtime: Context, ids: Iterable[UUID]) -> int:
    """Checks several logins, a few at a time. An error with one does not affect the others. Returns how many ended."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def check(provider_id: UUID) -> bool:
        async with places:
            with structlog.contextvars.bound_contextvars(provider_id=str(provider_id)):
                return await _check(runtime, provider_id)

    return sum(await asyncio.gather(*(check(provider_id) for provider_id in dict.fromkeys(ids))))


async def _check(runtime: Context, provider_id: UUID) -> bool:
    """Checks one login. False if it must be tried again, which happens when its claim ends."""
    begun_at = await runtime.now()
    url: str | None = None
    try:
        async with asyncio.timeout(_SECONDS):
            url = await _ask(runtime, provider_id)
    except (*_MAY_PASS, Unavailable, TimeoutError) as error:
        log.warning("check_put_off", error=str(error) or type(error).__name__, next="it is tried again in some minutes")
        return False
    except DashtamError as error:
        log.info("check_ended", outcome=str(error))
    await runtime.db(hooks.end_check, provider_id=provider_id, begun_at=begun_at, url=url)
    return True


async def _ask(runtime: Context, provider_id: UUID) -> str | None:
    """Asks for one login, and records the answer. Returns the address to which its hooks go.

    Raises:
        DashtamError: the login cannot be asked for, or still needs its user, or the provider did not answer.
    """
    state = (await runtime.db(tokens.read, ids=[provider_id])).get(provider_id)
    if state is None:
        return None
    integration = runtime.integrations[state.provider_key]
    if state.status == ProviderStatus.NEEDS_REAUTH:
        if not integration.can_renew:
            return None
        await renew.complete_renewal(runtime, provider_id)
        log.info("login_works_again")
    caller = Caller(provider_id)
    token = await access_token(runtime, provider_id, caller=caller)
    try:
        standing = await integration.check_login(caller, access_token=token.value)
    except ReauthRequired as error:
        await _need_user(runtime, provider_id, token.generation, error)
        return None
    await runtime.db(
        hooks.move_grant_end,
        provider_id=provider_id,
        generation=token.generation,
        ends_at=standing.grant_expires_at,
    )
    wanted = wanted_url(runtime, integration)
    if wanted is None or standing.hook_url == wanted:
        return wanted
    await integration.ask_for_hooks(caller, access_token=token.value, url=wanted)
    log.info("hooks_asked_for", before="none" if standing.hook_url is None else "another address")
    return wanted


async def _need_user(runtime: Context, provider_id: UUID, generation: int, error: ReauthRequired) -> None:
    task_id = structlog.contextvars.get_contextvars().get("task_id")
    stopped = await runtime.db(
        reauth.need_reauth,
        provider_id=provider_id,
        generation=generation,
        reason=error.reason,
        channels=runtime.settings.enabled_channels,
        task_id=None if task_id is None else str(task_id),
    )
    log.info("login_needs_its_user", reason=error.reason, changed=stopped)
